(class_definition name: (identifier) @name) @definition.type
(function_definition name: (identifier) @name) @definition.function
(module (expression_statement (assignment left: (identifier) @name) @definition.constant))

(call function: (identifier) @name) @reference
(call function: (attribute attribute: (identifier) @name)) @reference
(decorator (identifier) @name) @reference
(class_definition superclasses: (argument_list (identifier) @name)) @reference
(class_definition superclasses: (argument_list (attribute attribute: (identifier) @name))) @reference
(type (identifier) @name) @reference
(import_from_statement name: (dotted_name (identifier) @name)) @reference
(except_clause (identifier) @name) @reference

(class_declaration name: (_) @name) @definition.type
(class name: (_) @name) @definition.type
(method_definition name: (property_identifier) @name) @definition.function
(function_declaration name: (identifier) @name) @definition.function
(generator_function_declaration name: (identifier) @name) @definition.function
(function_expression name: (identifier) @name) @definition.function
(variable_declarator name: (identifier) @name value: [(arrow_function) (function_expression)]) @definition.function
(assignment_expression left: (identifier) @name right: [(arrow_function) (function_expression)]) @definition.function
(assignment_expression left: (member_expression property: (property_identifier) @name) right: [(arrow_function) (function_expression)]) @definition.function
(pair key: (property_identifier) @name value: [(arrow_function) (function_expression)]) @definition.function
(program (export_statement (lexical_declaration (variable_declarator name: (identifier) @name) @definition.constant)))

(call_expression function: (identifier) @name) @reference
(call_expression function: (member_expression property: (property_identifier) @name)) @reference
(new_expression constructor: (identifier) @name) @reference
(new_expression constructor: (member_expression property: (property_identifier) @name)) @reference
(import_specifier name: (identifier) @name) @reference
(import_clause (identifier) @name) @reference

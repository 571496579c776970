(function_signature name: (identifier) @name) @definition.function
(method_signature name: (property_identifier) @name) @definition.function
(abstract_method_signature name: (property_identifier) @name) @definition.function
(abstract_class_declaration name: (type_identifier) @name) @definition.type
(interface_declaration name: (type_identifier) @name) @definition.type
(type_alias_declaration name: (type_identifier) @name) @definition.type
(enum_declaration name: (identifier) @name) @definition.type

(type_annotation (type_identifier) @name) @reference
(type_arguments (type_identifier) @name) @reference
(extends_clause value: (identifier) @name) @reference
(implements_clause (type_identifier) @name) @reference

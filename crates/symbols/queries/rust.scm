; @definition.KIND captures a node that defines the name @name. @reference captures a use.

(struct_item name: (type_identifier) @name) @definition.type
(enum_item name: (type_identifier) @name) @definition.type
(union_item name: (type_identifier) @name) @definition.type
(type_item name: (type_identifier) @name) @definition.type
(trait_item name: (type_identifier) @name) @definition.type
(function_item name: (identifier) @name) @definition.function
(function_signature_item name: (identifier) @name) @definition.function
(macro_definition name: (identifier) @name) @definition.macro
(const_item name: (identifier) @name) @definition.constant
(static_item name: (identifier) @name) @definition.constant

(call_expression function: (identifier) @name) @reference
(call_expression function: (scoped_identifier name: (identifier) @name)) @reference
(call_expression function: (field_expression field: (field_identifier) @name)) @reference
(generic_function function: (identifier) @name) @reference
(generic_function function: (scoped_identifier name: (identifier) @name)) @reference
(generic_function function: (field_expression field: (field_identifier) @name)) @reference
(macro_invocation macro: (identifier) @name) @reference
(type_identifier) @name @reference
(scoped_identifier path: (identifier) @name) @reference
(use_declaration argument: (scoped_identifier name: (identifier) @name)) @reference
(use_list (identifier) @name) @reference

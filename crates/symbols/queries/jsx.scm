(jsx_opening_element name: (identifier) @name) @reference
(jsx_self_closing_element name: (identifier) @name) @reference

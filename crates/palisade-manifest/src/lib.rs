//! What a plugin says about itself and asks for: schema, three syntaxes, validation with spans.

//! What a plugin can be configured with, and whether a configuration fits.

use serde_json::Value as Json;

use super::Manifest;
use crate::json_schema::{JsonSchema, SchemaError};

/// What a plugin can be configured with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// What a configuration looks like.
    pub schema: JsonSchema,
    /// Values for what an operator leaves out; an object.
    pub defaults: Json,
}

impl Manifest {
    /// Whether `config` fits the plugin's schema as it is, defaults not put in.
    ///
    /// # Errors
    /// Where it does not fit. A plugin without a schema takes `null` and `{}` only.
    pub fn validate_config(&self, config: &Json) -> Result<(), Vec<SchemaError>> {
        match &self.config {
            Some(own) => own.schema.validate(config),
            None if config.is_null()
                || config.as_object().is_some_and(serde_json::Map::is_empty) =>
            {
                Ok(())
            }
            None => Err(vec![SchemaError {
                path: String::new(),
                message: "this plugin takes no configuration".into(),
                keyword: "config".into(),
            }]),
        }
    }

    /// `config` with the plugin's defaults put in where it says nothing (objects are merged key by key),
    /// validated. `null` stands for an empty object.
    ///
    /// # Errors
    /// Where the result does not fit the plugin's schema.
    pub fn effective_config(&self, config: &Json) -> Result<Json, Vec<SchemaError>> {
        let mut out = match config {
            Json::Null => Json::Object(serde_json::Map::new()),
            config => config.clone(),
        };
        if let Some(own) = &self.config {
            fill(&mut out, &own.defaults);
        }
        self.validate_config(&out)?;
        Ok(out)
    }
}

fn fill(config: &mut Json, defaults: &Json) {
    if let (Json::Object(config), Json::Object(defaults)) = (config, defaults) {
        for (key, default) in defaults {
            match config.get_mut(key) {
                Some(value) => fill(value, default),
                None => {
                    config.insert(key.clone(), default.clone());
                }
            }
        }
    }
}

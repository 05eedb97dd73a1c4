//! Recordings as they are written: `ipvs-golden/1`, explained in the README of `goldens/`.
//!
//! Fields that are not known are ignored, and what may be absent may be absent: newer recordings
//! have more of both.

use crate::tally::Failure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What `schema` says in every recording.
const SCHEMA: &str = "ipvs-golden/1";

/// One recording.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Golden {
    /// Its name.
    pub id: String,
    /// What kind of recording it is.
    pub category: String,
    /// Sysctls of `net.ipv4.vs` that were set first.
    #[serde(default)]
    pub sysctl: Option<Map<String, Value>>,
    /// Commands that were carried out first, in this order.
    #[serde(default)]
    pub setup: Option<Vec<String>>,
    /// What happened.
    #[serde(default)]
    pub events: Vec<Value>,
    /// All else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Golden {
    /// Reads a file; `None` if it is no recording.
    ///
    /// # Errors
    ///
    /// It cannot be read, or a recording is not as the schema says.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let told = |error: &dyn core::fmt::Display| Failure::new(error.to_string());
        let octets = std::fs::read(path).map_err(|error| told(&error))?;
        let value: Value = serde_json::from_slice(&octets).map_err(|error| told(&error))?;
        let is_golden = value.get("schema").and_then(Value::as_str) == Some(SCHEMA)
            && value.get("category").is_some();
        if !is_golden {
            return Ok(None);
        }
        serde_json::from_value(value).map(Some).map_err(|error| told(&error))
    }

    /// The commands of the setup.
    #[must_use]
    pub fn setup(&self) -> &[String] {
        self.setup.as_deref().unwrap_or_default()
    }

    /// A further field, if it is there, is not null, and is what it should be.
    #[must_use]
    pub fn field<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let value = self.more.get(name).filter(|value| !value.is_null())?;
        serde_json::from_value(value.clone()).ok()
    }
}

/// The JSON files in `folder` and all that is below it, in the order of their paths.
///
/// # Errors
///
/// A folder cannot be listed.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A value of a sysctl as the kernel prints it.
#[must_use]
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

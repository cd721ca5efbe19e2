//! What an object says of itself, compared with its place in an archive.

use serde::Deserialize;
use std::borrow::Cow;

/// The little of an object that is compared.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peek<'a> {
    #[serde(borrow, default)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

/// The type that an object gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnType<'a> {
    /// `v1`, `apps/v1`
    pub api_version: Cow<'a, str>,
    /// `Deployment`
    pub kind: Cow<'a, str>,
}

/// Checks that an object is the one that its place is for, and tells what type it gives itself, if any.
///
/// What is not JSON, or has no name, is nothing here: it is an error of that object alone, told when it is restored.
///
/// # Errors
/// What is wrong, to be said after the name of the place.
pub fn check<'a>(
    namespace: Option<&str>,
    name: &str,
    body: &'a [u8],
) -> Result<Option<OwnType<'a>>, String> {
    let Ok(peek) = serde_json::from_slice::<Peek<'_>>(body) else {
        return Ok(None);
    };
    if let Some(metadata) = peek.metadata
        && let Some(inside) = metadata.name
    {
        if inside != name {
            return Err(format!("holds an object called {inside:?}"));
        }
        let inside = metadata.namespace.as_deref().unwrap_or_default();
        if inside != namespace.unwrap_or_default() {
            return Err(format!("holds an object of namespace {inside:?}"));
        }
    }
    Ok(match (peek.api_version, peek.kind) {
        (Some(api_version), Some(kind)) => Some(OwnType { api_version, kind }),
        _ => None,
    })
}

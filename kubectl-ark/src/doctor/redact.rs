//! What looks like a secret is replaced in what is passed on: by the name of what holds it, by its form, and wherever else it
//! occurs once it is known.

use regex::{Captures, Regex};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// What stands in its place.
pub const REPLACED: &str = "REPLACED";

/// A shorter value is replaced where its name tells, but not looked for elsewhere: it would be found in words.
const LOOKED_FOR: usize = 6;

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a constant is well formed")
}

/// Names of what holds secrets: variables, keys of objects, flags.
static NAMES: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)(key|token|passw(or)?d|passphrase|secret|credential|authorization)")
});
/// Keys of objects that hold a secret; others, such as `secretName`, name one.
static KEYS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^(.*password|passwd|passphrase|.*token|secret|.*secret_?(access_?)?key|api_?key|authorization)$",
    )
});
/// `https://USER:PASSWORD@HOST`
static USER: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s"'<>]+@"#));
/// `X-Amz-Signature=…`, `password=…`, `"token":"…"`
static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)([a-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|signature|credential|accesskeyid|access_key_id|api_?key|x-amz-sec)[a-z0-9_.-]*|\bsig)(\\?["']?\s*(?:=|%3D|\\?["']\s*:)\s*\\?["']?)([^\s&"',;\\]+)"#,
    )
});
/// `Authorization: …` and `Bearer …`
static BEARER: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)\b(authorization:\s*|bearer\s+|basic\s+)[A-Za-z0-9+/=._~-]{8,}"));
/// Ids of AWS keys, JSON web tokens, private keys.
static FORMS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    [
        regex(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        regex(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
        regex(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
    ]
});

/// Replaces secrets; the more it has seen, the more it knows.
#[derive(Debug, Default)]
pub struct Redactor {
    /// The longest first: one may be part of another.
    known: Vec<String>,
}

impl Redactor {
    /// Remembers the secrets in an object, to be replaced wherever they occur.
    pub fn learn(&mut self, value: &Value) {
        let mut found = Vec::new();
        gather(value, &mut found);
        for secret in found {
            if secret.len() >= LOOKED_FOR && !self.known.contains(&secret) {
                self.known.push(secret);
            }
        }
        self.known.sort_by_key(|one| std::cmp::Reverse(one.len()));
    }

    /// An object without its secrets, and without what the API server keeps for its own use.
    pub fn object(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => self.list(items),
            Value::Object(fields) => {
                let variable = variable(fields).is_some();
                let kept = fields.iter().filter(|(key, _)| !is_noise(key));
                let kept = kept.map(|(key, value)| {
                    let value = match value {
                        Value::String(text)
                            if (variable && key == "value") || is_secret(key, text) =>
                        {
                            REPLACED.into()
                        }
                        value => self.object(value),
                    };
                    (key.clone(), value)
                });
                Value::Object(kept.collect::<Map<String, Value>>())
            }
            other => other.clone(),
        }
    }

    /// Arguments: `--password=x`, and `--password x` in two.
    fn list(&self, items: &[Value]) -> Value {
        let mut flag = false;
        let items = items.iter().map(|item| {
            let Value::String(text) = item else {
                flag = false;
                return self.object(item);
            };
            let after = std::mem::replace(
                &mut flag,
                text.starts_with('-') && !text.contains('=') && KEYS.is_match(text),
            );
            match after && !text.starts_with('-') {
                true => REPLACED.into(),
                false => self.text(text).into(),
            }
        });
        Value::Array(items.collect())
    }

    /// A text without its secrets.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for known in &self.known {
            if text.contains(known.as_str()) {
                text = text.replace(known.as_str(), REPLACED);
            }
        }
        for form in FORMS.iter() {
            text = form.replace_all(&text, REPLACED).into_owned();
        }
        text = USER
            .replace_all(&text, format!("${{1}}{REPLACED}@"))
            .into_owned();
        text = BEARER
            .replace_all(&text, format!("${{1}}{REPLACED}"))
            .into_owned();
        let assigned = |found: &Captures<'_>| {
            let (name, between, value) = (&found[1], &found[2], &found[3]);
            match is_path(value) {
                true => found[0].to_owned(),
                false => format!("{name}{between}{REPLACED}"),
            }
        };
        ASSIGNED.replace_all(&text, assigned).into_owned()
    }
}

/// What the API server or kubectl keeps beside an object: the whole of it once more.
fn is_noise(key: &str) -> bool {
    key == "managedFields" || key == "kubectl.kubernetes.io/last-applied-configuration"
}

/// The value of a variable of a container's environment whose name says that it is secret.
fn variable(fields: &Map<String, Value>) -> Option<&str> {
    let (name, value) = (
        fields.get("name")?.as_str()?,
        fields.get("value")?.as_str()?,
    );
    (NAMES.is_match(name) && !is_path(value) && !value.is_empty()).then_some(value)
}

fn is_secret(key: &str, value: &str) -> bool {
    KEYS.is_match(key) && !is_path(value) && !value.is_empty()
}

/// Where a secret is, not the secret.
fn is_path(value: &str) -> bool {
    value.starts_with('/') && value.matches('/').count() > 1 && !value.contains('+')
}

fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(variable(fields).map(str::to_owned));
            for (key, value) in fields {
                match value {
                    Value::String(text) if is_secret(key, text) => found.push(text.clone()),
                    value => gather(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        Value::String(text) => {
            // Of a URL, the password.
            for user in USER.find_iter(text) {
                let user = user.as_str();
                let both = user.split_once("://").map_or(user, |(_, both)| both);
                let password = both.trim_end_matches('@').split_once(':');
                found.extend(password.map(|(_, password)| password.to_owned()));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_in_objects_are_replaced_and_what_names_them_is_kept() {
        let object = json!({
            "metadata": {
                "name": "ark", "managedFields": [{"manager": "x"}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"password\":\"hush\"}",
                    "note": "a"
                },
            },
            "spec": {"containers": [{
                "args": ["--storage=s3://b/p?X-Amz-Signature=abcdef&region=x", "--token", "hush-hush", "--kms-key=alias/a"],
                "env": [
                    {"name": "AWS_SECRET_ACCESS_KEY", "value": "sesame"},
                    {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/credentials/cloud"},
                    {"name": "HTTPS_PROXY", "value": "http://me:hush@proxy:3128"},
                    {"name": "HOME", "value": "/tmp"},
                ],
                "envFrom": [{"secretRef": {"name": "s"}}],
            }], "volumes": [{"secret": {"secretName": "cloud"}}], "password": "hush"},
        });
        let expected = json!({
            "metadata": {"name": "ark", "annotations": {"note": "a"}},
            "spec": {"containers": [{
                "args": ["--storage=s3://b/p?X-Amz-Signature=REPLACED&region=x", "--token", "REPLACED", "--kms-key=alias/a"],
                "env": [
                    {"name": "AWS_SECRET_ACCESS_KEY", "value": "REPLACED"},
                    {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/credentials/cloud"},
                    {"name": "HTTPS_PROXY", "value": "http://REPLACED@proxy:3128"},
                    {"name": "HOME", "value": "/tmp"},
                ],
                "envFrom": [{"secretRef": {"name": "s"}}],
            }], "volumes": [{"secret": {"secretName": "cloud"}}], "password": "REPLACED"},
        });
        assert_eq!(Redactor::default().object(&object), expected);
    }

    #[test]
    fn what_is_known_is_replaced_wherever_it_is() {
        let mut redactor = Redactor::default();
        redactor.learn(&json!([
            {"name": "MY_TOKEN", "value": "sesame-open"},
            {"name": "HTTPS_PROXY", "value": "http://me:p@ss-word@proxy:1"},
        ]));
        assert_eq!(redactor.text("it says sesame-open"), "it says REPLACED");
        assert_eq!(redactor.text("p@ss-word is wrong"), "REPLACED is wrong");
    }

    #[test]
    fn texts_lose_what_has_the_form_of_a_secret_and_nothing_else() {
        let text = |text: &str| Redactor::default().text(text);
        for (before, after) in [
            (
                "GET https://u:p@h/x?X-Amz-Credential=AK/1&a=b&X-Amz-Security-Token=t failed",
                "GET https://REPLACED@h/x?X-Amz-Credential=REPLACED&a=b&X-Amz-Security-Token=REPLACED failed",
            ),
            (
                "aws_secret_access_key = abc/def+1",
                "aws_secret_access_key = REPLACED",
            ),
            ("id AKIAABCDEFGHIJKLMNOP.", "id REPLACED."),
            (
                "Authorization: AWS4-HMAC-SHA256-x",
                "Authorization: REPLACED",
            ),
            (
                r#"{"sessionToken":"abc"}"#,
                r#"{"sessionToken":"REPLACED"}"#,
            ),
            (
                "key -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- end",
                "key REPLACED end",
            ),
        ] {
            assert_eq!(text(before), after);
        }
        for same in [
            "s3://bucket/prefix?endpoint=https://s3.local&path-style=true",
            "check the credentials: Secret, profile, role or AWS_* variables",
            r#"MountVolume.SetUp failed: secret "cloud" not found"#,
            "time=\"2026-11-23T20:15:01Z\" level=info msg=\"12 secrets\"",
            "vol-1@node",
        ] {
            assert_eq!(text(same), same);
        }
    }
}

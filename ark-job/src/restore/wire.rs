//! JSON as the API server itself writes it. Pure.

use serde_json::Value;

/// The object as JSON, with `<`, `>`, `&` and two line separators escaped, as Go writes them.
///
/// It matters where the API server keeps bytes as they come and refuses to change them: the data of a ControllerRevision.
/// A controller that adopts one writes it again through Go's JSON; if that gives other bytes, the write is refused, and a
/// StatefulSet whose command has a `>` never finds its pods again.
pub fn wire(object: &Value) -> String {
    let text = object.to_string();
    let special = |character: char| matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    if !text.contains(special) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + text.len() / 16);
    for character in text.chars() {
        // Outside of strings JSON has none of them.
        if special(character) {
            escaped += &format!("\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn special_characters_are_escaped_as_go_does_and_mean_the_same() {
        let object = json!({"a<b": "x > y && z \u{2028}\u{2029} \" \\ é"});
        let text = wire(&object);
        assert_eq!(
            text,
            r#"{"a\u003cb":"x \u003e y \u0026\u0026 z \u2028\u2029 \" \\ é"}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), object);
        assert_eq!(wire(&json!({"a": 1})), r#"{"a":1}"#);
    }
}

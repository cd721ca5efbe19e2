//! Cuts the body of a LIST into items as it arrives, and reads the little of an item that a backup must know.
//!
//! Items are passed on byte for byte: they are never decoded into trees, so memory does not grow with a page and no
//! number or escape is changed. One pass finds where an item ends and where its metadata is. Both key orders occur:
//! built-in types put `metadata` before `items`, custom resources after.

use memchr::memchr2;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// What a LIST says about itself; complete only when the body is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHead {
    /// Whether `metadata` has been seen.
    pub complete: bool,
    /// The revision the list is of.
    pub resource_version: Option<String>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
    /// How many objects follow after this page, when the server says.
    pub remaining: Option<u64>,
}

/// Why a body is not a LIST.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It ended in the middle.
    #[error("the answer ends in the middle")]
    Truncated,
    /// It is something else.
    #[error("the answer is not a list: {0}")]
    NotAList(&'static str),
    /// An object of it cannot be read.
    #[error("an object of the list is not what its type says")]
    Object(#[source] serde_json::Error),
    /// Its metadata cannot be read.
    #[error("the metadata of the list or of an object in it is malformed")]
    Metadata(#[source] serde_json::Error),
}

/// Where an item is in the scanner's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    item: Range<usize>,
    metadata: Range<usize>,
    typed: bool,
}

/// An item of a LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The object's JSON, as the server sent it.
    pub json: &'a [u8],
    /// The JSON of its metadata.
    metadata: &'a [u8],
    /// Whether it says its own kind and apiVersion (custom resources do, built-in types in a LIST do not).
    pub typed: bool,
}

/// What a backup must know of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its namespace.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// Set when the object is being deleted.
    #[serde(borrow, default)]
    pub deletion_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    labels: Option<DecidingLabels<'a>>,
}

/// Labels that decide whether an object is backed up.
#[derive(Debug, Deserialize)]
struct DecidingLabels<'a> {
    #[serde(borrow, default, rename = "ark.heptio.com/exclude-from-backup")]
    ark: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "velero.io/exclude-from-backup")]
    velero: Option<Cow<'a, str>>,
    /// [`crate::volumes::identity::LOCATION`].
    #[serde(borrow, default, rename = "ark.heptio.com/location")]
    location: Option<Cow<'a, str>>,
}

impl Metadata<'_> {
    /// Whether a label says to leave the object out (value `true` exactly, as Velero).
    pub fn is_excluded(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| {
            labels.ark.as_deref() == Some("true") || labels.velero.as_deref() == Some("true")
        })
    }

    /// Whether it is an object by which snapshots of volumes are taken or restored: a thing of ours that passes, and no
    /// part of a backup.
    pub fn is_of_a_snapshot(&self) -> bool {
        let labels = self.labels.as_ref();
        labels.is_some_and(|labels| labels.location.is_some())
    }
}

impl<'a> Item<'a> {
    /// Reads the item's metadata.
    ///
    /// # Errors
    /// When it has none, or it lacks a name.
    pub fn metadata(&self) -> Result<Metadata<'a>, ScanError> {
        serde_json::from_slice(self.metadata).map_err(ScanError::Metadata)
    }

    /// Reads the whole item as what a caller must know of its type.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read<T: Deserialize<'a>>(&self) -> Result<T, ScanError> {
        serde_json::from_slice(self.json).map_err(ScanError::Object)
    }

    /// Reads the item's labels.
    ///
    /// # Errors
    /// When they are malformed.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, ScanError> {
        #[derive(Deserialize)]
        struct Labels {
            #[serde(default)]
            labels: Option<BTreeMap<String, String>>,
        }
        let labels: Labels = serde_json::from_slice(self.metadata).map_err(ScanError::Metadata)?;
        Ok(labels.labels.unwrap_or_default())
    }

    /// The text that makes the JSON say its kind and apiVersion when put before [`Item::rest`].
    pub fn rest(&self) -> &'a [u8] {
        if self.typed {
            self.json
        } else {
            self.json.get(1..).unwrap_or_default()
        }
    }
}

/// The opening of an object that is spliced before an item that lacks kind and apiVersion: `{"kind":…,"apiVersion":…,`.
pub fn type_prefix(api_version: &str, kind: &str) -> Vec<u8> {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        "{{\"kind\":{},\"apiVersion\":{},",
        text(kind),
        text(api_version)
    )
    .into_bytes()
}

/// Cuts a LIST body, fed in pieces, into items.
#[derive(Debug)]
pub struct ListScanner {
    buffer: Vec<u8>,
    /// Where scanning goes on; may lie one beyond the end, after a backslash.
    at: usize,
    place: Place,
    value: Value,
    /// The key whose value is being read at the top level.
    key: Vec<u8>,
    head: ListHead,
    saw_items: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeList,
    BeforeKey,
    InKey,
    BeforeColon,
    BeforeValue,
    InValue,
    AfterValue,
    BeforeItem,
    InItem,
    AfterItem,
    Done,
}

/// State of the scan of one JSON value, resumable after any byte.
#[derive(Debug, Default)]
struct Value {
    start: usize,
    depth: usize,
    in_string: bool,
    /// Top-level keys of an object: where the string being read began, and whether it is a key.
    string_start: usize,
    expect_key: bool,
    key: Key,
    metadata: Option<Range<usize>>,
    has_kind: bool,
    has_api_version: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Metadata {
        start: usize,
    },
}

const OTHER: u8 = 0;
const QUOTE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const COMMA: u8 = 4;
const COLON: u8 = 5;
/// The meaning of a byte outside of strings.
const CLASS: [u8; 256] = {
    let mut class = [OTHER; 256];
    class[b'"' as usize] = QUOTE;
    class[b'{' as usize] = OPEN;
    class[b'[' as usize] = OPEN;
    class[b'}' as usize] = CLOSE;
    class[b']' as usize] = CLOSE;
    class[b',' as usize] = COMMA;
    class[b':' as usize] = COLON;
    class
};

impl Value {
    fn begin(start: usize) -> Value {
        Value {
            start,
            expect_key: true,
            ..Value::default()
        }
    }

    /// Scans on from `at`; returns where the value ends, or `None` when more input is needed.
    ///
    /// A container or string ends after its last byte, a number or literal before the byte that follows it.
    fn scan(&mut self, buffer: &[u8], at: &mut usize) -> Option<usize> {
        let mut i = *at;
        while i < buffer.len() {
            if self.in_string {
                match memchr2(b'"', b'\\', &buffer[i..]) {
                    None => i = buffer.len(),
                    Some(n) if buffer[i + n] == b'\\' => i += n + 2,
                    Some(n) => {
                        i += n + 1;
                        self.in_string = false;
                        if self.depth == 0 {
                            *at = i;
                            return Some(i);
                        }
                        if self.depth == 1 && self.expect_key {
                            self.note_key(&buffer[self.string_start..i - 1]);
                        }
                    }
                }
                continue;
            }
            match CLASS[buffer[i] as usize] {
                OTHER if self.depth == 0 && buffer[i].is_ascii_whitespace() && i > self.start => {
                    *at = i;
                    return Some(i);
                }
                OTHER => {}
                QUOTE => {
                    self.in_string = true;
                    self.string_start = i + 1;
                }
                OPEN => self.depth += 1,
                CLOSE => {
                    if self.depth == 0 {
                        *at = i;
                        return Some(i);
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.end_member(i);
                        *at = i + 1;
                        return Some(i + 1);
                    }
                }
                COMMA => {
                    if self.depth == 0 {
                        *at = i;
                        return Some(i);
                    }
                    if self.depth == 1 {
                        self.end_member(i);
                        self.expect_key = true;
                    }
                }
                _ => {
                    if self.depth == 1
                        && let Key::Metadata { start } = &mut self.key
                        && *start == 0
                    {
                        *start = i + 1;
                    }
                }
            }
            i += 1;
        }
        *at = i;
        None
    }

    fn note_key(&mut self, key: &[u8]) {
        self.expect_key = false;
        match key {
            b"metadata" => self.key = Key::Metadata { start: 0 },
            b"kind" => self.has_kind = true,
            b"apiVersion" => self.has_api_version = true,
            _ => {}
        }
    }

    fn end_member(&mut self, end: usize) {
        if let Key::Metadata { start } = self.key
            && start > 0
        {
            self.metadata = Some(start..end);
        }
        self.key = Key::Other;
    }

    /// The buffer has lost its first `by` bytes.
    fn shift(&mut self, by: usize) {
        self.start -= by;
        self.string_start = self.string_start.saturating_sub(by);
        if let Key::Metadata { start } = &mut self.key {
            *start = start.saturating_sub(by);
        }
        if let Some(metadata) = &mut self.metadata {
            *metadata = metadata.start - by..metadata.end - by;
        }
    }
}

impl Default for ListScanner {
    fn default() -> Self {
        ListScanner {
            buffer: Vec::new(),
            at: 0,
            place: Place::BeforeList,
            value: Value::default(),
            key: Vec::new(),
            head: ListHead::default(),
            saw_items: false,
        }
    }
}

impl ListScanner {
    /// Starts on the body of another page, keeping the buffer.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.at = 0;
        self.place = Place::BeforeList;
        self.head = ListHead::default();
        self.saw_items = false;
    }

    /// Adds a piece of the body, forgetting what has been handed out: spans found before are void.
    pub fn feed(&mut self, piece: &[u8]) {
        let keep_from = match self.place {
            Place::InItem | Place::InValue | Place::InKey => self.value.start,
            _ => self.at,
        }
        .min(self.buffer.len());
        if keep_from > 0 {
            self.buffer.drain(..keep_from);
            self.at -= keep_from;
            if matches!(self.place, Place::InItem | Place::InValue | Place::InKey) {
                self.value.shift(keep_from);
            }
        }
        self.buffer.extend_from_slice(piece);
    }

    /// What the list says about itself, as far as it has been read.
    pub fn head(&self) -> &ListHead {
        &self.head
    }

    /// The next whole item in what has been fed, or `None` when more is needed or the list has ended.
    ///
    /// # Errors
    /// [`ScanError`] when this is not a LIST.
    pub fn next_item(&mut self) -> Result<Option<Span>, ScanError> {
        loop {
            match self.place {
                Place::InItem => {
                    let Some(end) = self.value.scan(&self.buffer, &mut self.at) else {
                        return Ok(None);
                    };
                    self.place = Place::AfterItem;
                    let metadata = self.value.metadata.clone();
                    let metadata =
                        metadata.ok_or(ScanError::NotAList("an item has no metadata"))?;
                    let typed = self.value.has_kind && self.value.has_api_version;
                    if self.value.has_kind != self.value.has_api_version {
                        return Err(ScanError::NotAList(
                            "an item has kind or apiVersion, but not both",
                        ));
                    }
                    return Ok(Some(Span {
                        item: self.value.start..end,
                        metadata,
                        typed,
                    }));
                }
                Place::InKey => {
                    let Some(end) = self.value.scan(&self.buffer, &mut self.at) else {
                        return Ok(None);
                    };
                    self.key = self.buffer[self.value.start + 1..end - 1].to_vec();
                    self.place = Place::BeforeColon;
                }
                Place::InValue => {
                    let Some(end) = self.value.scan(&self.buffer, &mut self.at) else {
                        return Ok(None);
                    };
                    self.place = Place::AfterValue;
                    if self.key == b"metadata" {
                        self.read_head(self.value.start..end)?;
                    }
                }
                _ => {
                    let Some(byte) = self.next_byte() else {
                        return Ok(None);
                    };
                    self.step(byte)?;
                }
            }
        }
    }

    /// The item that a span found since the last [`ListScanner::feed`] points at.
    pub fn item(&self, span: &Span) -> Item<'_> {
        Item {
            json: &self.buffer[span.item.clone()],
            metadata: &self.buffer[span.metadata.clone()],
            typed: span.typed,
        }
    }

    /// Checks that the whole list has been read.
    ///
    /// # Errors
    /// [`ScanError::Truncated`] when the body ended early.
    pub fn finish(&self) -> Result<&ListHead, ScanError> {
        if self.place != Place::Done {
            return Err(ScanError::Truncated);
        }
        if !self.saw_items || !self.head.complete {
            return Err(ScanError::NotAList("items or metadata are missing"));
        }
        Ok(&self.head)
    }

    /// The next byte that is not white space.
    fn next_byte(&mut self) -> Option<u8> {
        while let Some(&byte) = self.buffer.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes one structural byte of the list itself.
    fn step(&mut self, byte: u8) -> Result<(), ScanError> {
        let not = |why| Err(ScanError::NotAList(why));
        let mut consume = true;
        self.place = match (self.place, byte) {
            (Place::BeforeList, b'{') => Place::BeforeKey,
            (Place::BeforeKey, b'"') => {
                self.value = Value::begin(self.at);
                consume = false;
                Place::InKey
            }
            (Place::BeforeKey | Place::AfterValue, b'}') => Place::Done,
            (Place::BeforeColon, b':') => Place::BeforeValue,
            (Place::BeforeValue, b'[') if self.key == b"items" => {
                self.saw_items = true;
                Place::BeforeItem
            }
            (Place::BeforeValue, _) => {
                // Go writes an empty list of items as null.
                self.saw_items |= self.key == b"items" && byte == b'n';
                self.value = Value::begin(self.at);
                consume = false;
                Place::InValue
            }
            (Place::AfterValue, b',') => Place::BeforeKey,
            (Place::BeforeItem, b'{') => {
                self.value = Value::begin(self.at);
                consume = false;
                Place::InItem
            }
            (Place::BeforeItem | Place::AfterItem, b']') => Place::AfterValue,
            (Place::AfterItem, b',') => Place::BeforeItem,
            (Place::Done, _) => return not("something follows it"),
            (Place::BeforeList, _) => return not("it is not an object"),
            (Place::BeforeItem, _) => return not("an item is not an object"),
            _ => return not("it is not JSON"),
        };
        if consume {
            self.at += 1;
        }
        Ok(())
    }

    fn read_head(&mut self, range: Range<usize>) -> Result<(), ScanError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            resource_version: Option<String>,
            #[serde(default, rename = "continue")]
            next: Option<String>,
            #[serde(default)]
            remaining_item_count: Option<u64>,
        }
        let head: Head =
            serde_json::from_slice(&self.buffer[range]).map_err(ScanError::Metadata)?;
        self.head = ListHead {
            complete: true,
            resource_version: head.resource_version.filter(|version| !version.is_empty()),
            next: head.next.filter(|token| !token.is_empty()),
            remaining: head.remaining_item_count,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    type Scanned = (Vec<Vec<u8>>, Vec<String>, ListHead);

    /// Feeds `body` in pieces of `size`, returns the items' JSON and their names.
    fn scan(body: &[u8], size: usize) -> Result<Scanned, ScanError> {
        let mut scanner = ListScanner::default();
        let (mut items, mut names) = (Vec::new(), Vec::new());
        for piece in body.chunks(size.max(1)) {
            scanner.feed(piece);
            while let Some(span) = scanner.next_item()? {
                let item = scanner.item(&span);
                items.push(item.json.to_vec());
                names.push(item.metadata()?.name.into_owned());
            }
        }
        let head = scanner.finish()?.clone();
        Ok((items, names, head))
    }

    #[test]
    fn both_key_orders_are_read() {
        let built_in = br#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"t","remainingItemCount":3},"items":[{"metadata":{"name":"a"},"data":{"k":"}\"]"}},{"metadata":{"name":"b"}}]}"#;
        let custom = br#"{"apiVersion":"x/v1","items":[{"apiVersion":"x/v1","kind":"X","metadata":{"managedFields":[{"a":"metadata"}],"name":"a"}}],"kind":"XList","metadata":{"continue":"","resourceVersion":"7"}}"#;
        for size in 1..built_in.len() {
            let (items, names, head) = scan(built_in, size).unwrap();
            assert_eq!(names, ["a", "b"]);
            assert_eq!(items[1], br#"{"metadata":{"name":"b"}}"#);
            assert_eq!(
                head,
                ListHead {
                    complete: true,
                    resource_version: Some("7".into()),
                    next: Some("t".into()),
                    remaining: Some(3)
                }
            );
            let (_, names, head) = scan(custom, size).unwrap();
            assert_eq!(names, ["a"]);
            assert_eq!(head.next, None);
        }
    }

    #[test]
    fn empty_lists_are_lists() {
        for body in [
            r#"{"metadata":{"resourceVersion":"1"},"items":[]}"#,
            r#"{"items": null ,"metadata":{}}"#,
            " {\"items\":[ ],\"metadata\":{ } } ",
        ] {
            assert_eq!(scan(body.as_bytes(), 3).unwrap().0.len(), 0, "{body}");
        }
    }

    #[test]
    fn what_is_not_a_whole_list_is_refused() {
        let whole = br#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}}]}"#;
        for length in 0..whole.len() {
            assert!(scan(&whole[..length], 5).is_err(), "{length}");
        }
        for body in [
            "[]",
            "{}",
            r#"{"kind":"Status"}"#,
            r#"{"metadata":{},"items":[1]}"#,
            r#"{"metadata":{},"items":[{}]}"#,
            r#"{"metadata":{},"items":[]}x"#,
            r#"{"metadata":{},"items":[{"kind":"A","metadata":{"name":"x"}}]}"#,
        ] {
            assert!(scan(body.as_bytes(), 100).is_err(), "{body}");
        }
    }

    #[test]
    fn kind_and_api_version_are_spliced_where_they_lack() {
        let body = br#"{"metadata":{},"items":[{"metadata":{"name":"a"},"x":1e400},{"kind":"K","apiVersion":"v","metadata":{"name":"b"}}]}"#;
        let mut scanner = ListScanner::default();
        scanner.feed(body);
        let mut texts = Vec::new();
        while let Some(span) = scanner.next_item().unwrap() {
            let item = scanner.item(&span);
            let prefix = if item.typed {
                Vec::new()
            } else {
                type_prefix("v1", "ConfigMap")
            };
            texts.push(String::from_utf8([&prefix[..], item.rest()].concat()).unwrap());
        }
        assert_eq!(
            texts[0],
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"x":1e400}"#
        );
        assert_eq!(
            texts[1],
            r#"{"kind":"K","apiVersion":"v","metadata":{"name":"b"}}"#
        );
    }

    #[test]
    fn exclude_labels_and_deletion_are_seen() {
        let read = |json: &str| {
            let metadata: Metadata<'_> = serde_json::from_str(json).unwrap();
            (
                metadata.is_excluded(),
                metadata.deletion_timestamp.is_some(),
            )
        };
        assert_eq!(read(r#"{"name":"a"}"#), (false, false));
        assert_eq!(
            read(r#"{"name":"a","labels":{"velero.io/exclude-from-backup":"true"}}"#),
            (true, false)
        );
        assert_eq!(
            read(r#"{"name":"a","labels":{"ark.heptio.com/exclude-from-backup":"true","x":"y"}}"#),
            (true, false)
        );
        assert_eq!(
            read(r#"{"name":"a","labels":{"velero.io/exclude-from-backup":"yes"}}"#),
            (false, false)
        );
        assert_eq!(
            read(r#"{"name":"a","labels":null,"deletionTimestamp":"2026-01-01T00:00:00Z"}"#),
            (false, true)
        );
    }

    #[test]
    fn objects_by_which_snapshots_are_taken_are_seen() {
        let read = |json: &str| {
            let metadata: Metadata<'_> = serde_json::from_str(json).unwrap();
            metadata.is_of_a_snapshot()
        };
        let label = crate::volumes::identity::LOCATION;
        assert!(!read(r#"{"name":"a","labels":{"x":"y"}}"#));
        assert!(read(&format!(
            r#"{{"name":"a","labels":{{"{label}":"0123456789abcdef"}}}}"#
        )));
    }

    fn odd_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>()
                .prop_filter("finite", |n| n.is_finite())
                .prop_map(Json::from),
            "[\\x00-\\x7f\u{e9}\u{1f600}\"\\\\{}\\[\\],:]{0,20}".prop_map(Json::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::vec(("[a-z\"\\\\{}]{0,6}|metadata|items|kind", inner), 0..6)
                    .prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn items_come_out_byte_for_byte(values in prop::collection::vec(odd_json(), 0..6), size in 1usize..64, pretty in any::<bool>()) {
            let items: Vec<Json> = values.iter().enumerate()
                .map(|(n, value)| json!({"metadata": {"x": value, "name": format!("n{n}")}, "data": value}))
                .collect();
            let list = json!({"apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items, "kind": "L"});
            let body = if pretty { serde_json::to_vec_pretty(&list).unwrap() } else { serde_json::to_vec(&list).unwrap() };
            let (found, names, head) = scan(&body, size).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(names, (0..values.len()).map(|n| format!("n{n}")).collect::<Vec<_>>());
            prop_assert_eq!(head.resource_version.as_deref(), Some("5"));
            for (bytes, item) in found.iter().zip(&items) {
                prop_assert!(body.windows(bytes.len()).any(|window| window == &bytes[..]));
                prop_assert_eq!(&serde_json::from_slice::<Json>(bytes).unwrap(), item);
            }
        }
    }
}

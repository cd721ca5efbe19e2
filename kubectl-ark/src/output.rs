//! Printing objects as `kubectl get` prints them: tables, YAML and JSON that kubectl reads back, names, JSONPath, custom columns.
//!
//! [`print_objects`] is for every noun: what is [`Printable`] says what its row is, and the formats are the same for all.

use crate::Surroundings;
use crate::jsonpath::{self, Path, Template};
use crate::table::{Fit, Layout, Table};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use jiff::Timestamp;
use serde::Serialize as _;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::io::Write as _;
use std::sync::atomic::{self, AtomicBool};

/// An object that `get` prints.
pub trait Printable {
    /// What to do with its table in a narrow terminal.
    const FIT: Fit = Fit {
        leave_out: &[],
        cut: &[],
    };

    /// The columns of its table; the first one is its name.
    fn header(wide: bool) -> &'static [&'static str];

    /// Its row in that table.
    fn row(&self, wide: bool, now: Timestamp) -> Vec<String>;

    /// The whole object, with apiVersion and kind.
    fn value(&self) -> Value;

    /// `backup.ark.heptio.com/demo`
    fn reference(&self) -> String;
}

/// The column that says where an object stands; one that is gone is said there to be deleted.
pub const STATUS: &str = "STATUS";

/// How objects are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printing {
    /// As what.
    pub format: Format,
    /// Leave out the header of a table.
    pub no_headers: bool,
    /// By what to sort them.
    pub sort_by: Option<SortBy>,
    /// Go on, as they change.
    pub watch: Watch,
    /// After an empty line, if objects were printed before.
    pub separate: bool,
}

/// Whether changes are printed as they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// What is there now, and that is all.
    #[default]
    No,
    /// What is there now, and what changes.
    Yes,
    /// Only what changes.
    Only,
}

/// As what objects are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// type/name
    Name,
    /// What a template makes of them.
    JsonPath(Template),
    /// The values that a template's paths find, as a JSON array.
    JsonPathAsJson(Template),
    /// A table of the caller's.
    CustomColumns(Columns),
}

/// The columns of a table of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<(String, Path)>);

/// A path by which objects are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortBy {
    path: Path,
    typed: String,
}

/// What can be typed after `-o`, or begins what can.
pub const KINDS: &[&str] = &[
    "wide",
    "json",
    "yaml",
    "name",
    "jsonpath=",
    "jsonpath-as-json=",
    "jsonpath-file=",
    "custom-columns=",
    "custom-columns-file=",
];

/// What can be typed after `-o`.
pub const FORMATS: &str = "wide, json, yaml, name, jsonpath=TEMPLATE, jsonpath-as-json=TEMPLATE, jsonpath-file=FILE, \
                           custom-columns=NAME:PATH,… or custom-columns-file=FILE";

impl Format {
    /// Reads what was typed after `-o`; `read` gives the content of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(
        typed: &str,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Format, String> {
        let (kind, argument) = match typed.split_once('=') {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (typed, None),
        };
        let template = |text: &str| Template::parse(text).map_err(|why| format!("{kind}: {why}"));
        match (kind, argument) {
            ("table", None) => Ok(Format::Table),
            ("wide", None) => Ok(Format::Wide),
            ("json", None) => Ok(Format::Json),
            ("yaml", None) => Ok(Format::Yaml),
            ("name", None) => Ok(Format::Name),
            ("jsonpath", Some(text)) => template(text).map(Format::JsonPath),
            ("jsonpath-as-json", Some(text)) => template(text).map(Format::JsonPathAsJson),
            // As kubectl: the line break at the end of a file is not part of the template.
            ("jsonpath-file", Some(file)) => {
                template(read(file)?.trim_end_matches(['\n', '\r'])).map(Format::JsonPath)
            }
            ("custom-columns", Some(text)) => Columns::parse(text).map(Format::CustomColumns),
            ("custom-columns-file", Some(file)) => {
                Columns::of_file(&read(file)?).map(Format::CustomColumns)
            }
            (
                "jsonpath"
                | "jsonpath-as-json"
                | "jsonpath-file"
                | "custom-columns"
                | "custom-columns-file",
                None,
            ) => Err(format!("{kind} needs a value: -o {kind}=…")),
            _ => Err(format!(
                "there is no format {typed:?}: it is one of {FORMATS}"
            )),
        }
    }

    /// It has a header, which may be left out.
    pub fn is_table(&self) -> bool {
        matches!(
            self,
            Format::Table | Format::Wide | Format::CustomColumns(_)
        )
    }
}

impl Columns {
    /// Reads `NAME:.metadata.name,PHASE:.status.phase`.
    fn parse(text: &str) -> Result<Columns, String> {
        let columns = text.split(',').map(|column| {
            let (name, path) = column
                .split_once(':')
                .filter(|(name, path)| !name.is_empty() && !path.is_empty())
                .ok_or_else(|| format!("custom-columns: {column:?} is not NAME:PATH"))?;
            Columns::column(name, path)
        });
        Ok(Columns(columns.collect::<Result<_, _>>()?))
    }

    /// Reads a line of names and a line of paths.
    fn of_file(text: &str) -> Result<Columns, String> {
        let mut lines = text.lines().map(|line| line.split_whitespace());
        let (Some(names), Some(paths)) = (lines.next(), lines.next()) else {
            return Err("custom-columns-file: it needs a line of names and a line of paths".into());
        };
        let (names, paths): (Vec<&str>, Vec<&str>) = (names.collect(), paths.collect());
        if names.len() != paths.len() || names.is_empty() {
            return Err(format!(
                "custom-columns-file: {} names and {} paths",
                names.len(),
                paths.len()
            ));
        }
        let columns = names.into_iter().zip(paths);
        let columns = columns.map(|(name, path)| Columns::column(name, path));
        Ok(Columns(columns.collect::<Result<_, _>>()?))
    }

    fn column(name: &str, path: &str) -> Result<(String, Path), String> {
        let path = Path::relaxed(path).map_err(|why| format!("custom-columns: {path}: {why}"))?;
        Ok((name.to_owned(), path))
    }

    fn table(&self, values: &[Value]) -> Table {
        let header: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        let mut table = Table::new(&header);
        for value in values {
            let cell = |(_, path): &(String, Path)| {
                let found = path.find(value).into_iter().map(jsonpath::printed);
                found.collect::<Vec<_>>().join(",")
            };
            table.push(self.0.iter().map(cell).collect());
        }
        table
    }
}

impl SortBy {
    /// Reads what was typed after `--sort-by`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(typed: &str) -> Result<SortBy, String> {
        Ok(SortBy {
            path: Path::relaxed(typed)?,
            typed: typed.to_owned(),
        })
    }

    /// Sorts; what has nothing there comes first, and what is equal stays as it is.
    ///
    /// # Errors
    /// When no object has anything there: it is mistyped.
    pub fn sort<T: Printable>(&self, objects: &mut Vec<T>) -> Result<(), Failure> {
        let mut keyed: Vec<(Option<Value>, T)> = objects
            .drain(..)
            .map(|object| {
                let value = object.value();
                (self.path.find(&value).first().copied().cloned(), object)
            })
            .collect();
        let found = keyed.is_empty() || keyed.iter().any(|(key, _)| key.is_some());
        keyed.sort_by(|(one, _), (other, _)| match (one, other) {
            (Some(one), Some(other)) => jsonpath::order(one, other),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        objects.extend(keyed.into_iter().map(|(_, object)| object));
        if found {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Failed,
            format!("--sort-by: none of the objects has {}", self.typed),
        )
        .hint("-o yaml shows what they have"))
    }
}

/// Whether objects have been printed to standard output, of which a process has one.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Ark's namespace, to be named when nothing is in it.
    pub namespace: &'a str,
    /// One object was asked for by its name: kubectl's rule is to print it as itself, else a List is printed.
    pub by_name: bool,
}

/// Prints what `get` found, in the format that was asked for, to standard output. `objects` are in the order in which they are
/// printed unless `--sort-by` has another.
///
/// # Errors
/// When `--sort-by` finds nothing in any of them.
pub fn print_objects<T: Printable>(
    mut objects: Vec<T>,
    asked: Asked<'_>,
    printing: &Printing,
    surroundings: &Surroundings,
) -> Result<(), Failure> {
    if let Some(sort_by) = &printing.sort_by {
        sort_by.sort(&mut objects)?;
    }
    if objects.is_empty() && !matches!(printing.format, Format::Json | Format::Yaml) {
        if printing.format.is_table() {
            eprintln!("No resources found in {} namespace.", asked.namespace);
        }
        return Ok(());
    }
    let (text, layout) = text(&objects, asked, printing, surroundings);
    let gap = match PRINTED.swap(true, atomic::Ordering::Relaxed) && printing.separate {
        true => "\n",
        false => "",
    };
    print!("{gap}{text}");
    if layout.left_out > 0 && printing.format == Format::Wide {
        eprintln!(
            "hint: {} columns do not fit; `| cat` shows all",
            layout.left_out
        );
    }
    Ok(())
}

/// As [`print_objects`], of what was asked for by names of which one may be `missing`.
///
/// # Errors
/// That one is missing, after the others are printed.
pub fn print_found<T: Printable>(
    objects: Vec<T>,
    missing: Option<Failure>,
    asked: Asked<'_>,
    printing: &Printing,
    surroundings: &Surroundings,
) -> Result<Exit, Failure> {
    match missing {
        Some(missing) => {
            if !objects.is_empty() {
                print_objects(objects, asked, printing, surroundings)?;
            }
            Err(missing)
        }
        None => print_objects(objects, asked, printing, surroundings).map(|()| Exit::Done),
    }
}

/// What is printed of objects, and how a table of them is laid out.
pub fn text<T: Printable>(
    objects: &[T],
    asked: Asked<'_>,
    printing: &Printing,
    surroundings: &Surroundings,
) -> (String, Layout) {
    if let Some(table) = table(objects, printing, surroundings.now) {
        let layout = table.layout(!printing.no_headers, surroundings.width);
        return (table.render_as(!printing.no_headers, &layout), layout);
    }
    let whole = || {
        let mut values: Vec<Value> = objects.iter().map(value).collect();
        match (asked.by_name, values.len()) {
            (true, 1) => values.remove(0),
            _ => list(values),
        }
    };
    let text = match &printing.format {
        // Tables are above.
        Format::Table | Format::Wide | Format::CustomColumns(_) => String::new(),
        Format::Name => objects
            .iter()
            .map(|object| format!("{}\n", object.reference()))
            .collect(),
        Format::Json => json(&whole()),
        Format::Yaml => yaml(&whole()),
        Format::JsonPath(template) => template.render(&whole()),
        Format::JsonPathAsJson(template) => {
            let whole = whole();
            let found = template.values(&whole).into_iter().map(jsonpath::sorted);
            indented_by_four(&Value::Array(found.collect()))
        }
    };
    (text, Layout::default())
}

/// The table of objects, if they are to be printed as one.
pub fn table<T: Printable>(objects: &[T], printing: &Printing, now: Timestamp) -> Option<Table> {
    let wide = match &printing.format {
        Format::Table => false,
        Format::Wide => true,
        Format::CustomColumns(columns) => {
            let values: Vec<Value> = objects.iter().map(value).collect();
            return Some(columns.table(&values));
        }
        _ => return None,
    };
    let mut table = Table::new(T::header(wide)).fit(T::FIT);
    objects
        .iter()
        .for_each(|object| table.push(object.row(wide, now)));
    Some(table)
}

/// An object without who wrote what, as kubectl leaves it out.
fn value<T: Printable>(object: &T) -> Value {
    let mut value = object.value();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    value
}

/// As kubectl writes JSON, which somebody may compare with.
fn indented_by_four(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    let mut writer = Serializer::with_formatter(&mut text, formatter);
    value
        .serialize(&mut writer)
        .expect("JSON can be written as JSON");
    format!("{}\n", String::from_utf8_lossy(&text))
}

/// Writes to standard output, and says whether anybody still reads there.
pub fn write(text: &str) -> bool {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_ok()
}

/// One object as a YAML document, without a separator.
pub fn yaml(object: &Value) -> String {
    ark_job::yaml::in_its_order(object)
}

/// Objects as YAML documents, in order.
pub fn documents<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    let texts: Vec<String> = objects.into_iter().map(yaml).collect();
    texts.join("---\n")
}

/// One object as indented JSON, with a newline.
pub fn json(object: &Value) -> String {
    format!("{object:#}\n")
}

/// Objects as one `List`, as kubectl prints several.
pub fn list(objects: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of nothing but its JSON.
    #[derive(Clone, Debug, PartialEq)]
    struct Plain(Value);

    impl Printable for Plain {
        fn header(_: bool) -> &'static [&'static str] {
            &["NAME", "KIND"]
        }

        fn row(&self, _: bool, _: Timestamp) -> Vec<String> {
            vec![
                jsonpath::printed(&self.0["metadata"]["name"]),
                "Thing".into(),
            ]
        }

        fn value(&self) -> Value {
            self.0.clone()
        }

        fn reference(&self) -> String {
            format!("thing/{}", jsonpath::printed(&self.0["metadata"]["name"]))
        }
    }

    fn things() -> Vec<Plain> {
        [("b10", Some(3)), ("b2", Some(20)), ("a", None)]
            .map(|(name, size)| {
                let managed = json!([{"manager": "x"}]);
                let metadata = json!({"name": name, "managedFields": managed});
                let mut thing = json!({"kind": "Thing", "metadata": metadata});
                if let Some(size) = size {
                    thing["size"] = json!(size);
                }
                Plain(thing)
            })
            .to_vec()
    }

    fn format(typed: &str) -> Result<Format, String> {
        Format::parse(typed, |file| match file {
            "columns" => Ok("NAME SIZE\n.metadata.name size\n".into()),
            "template" => Ok("{.kind}\n".into()),
            other => Err(format!("reading {other}")),
        })
    }

    fn printed(typed: &str, by_name: bool, things: &[Plain]) -> String {
        let printing = Printing {
            format: format(typed).unwrap(),
            ..Printing::default()
        };
        let surroundings = Surroundings {
            now: Timestamp::UNIX_EPOCH,
            home: None,
            temporary: "/tmp".into(),
            nonce: String::new(),
            terminal: false,
            input: false,
            width: None,
        };
        let asked = Asked {
            namespace: "ark",
            by_name,
        };
        text(things, asked, &printing, &surroundings).0
    }

    #[test]
    fn every_format_prints_what_kubectl_prints() {
        let all = things();
        for (typed, by_name, wanted) in [
            ("name", false, "thing/b10\nthing/b2\nthing/a\n"),
            ("jsonpath={.items[*].metadata.name}", false, "b10 b2 a"),
            ("jsonpath={.kind}", false, "List"),
            ("jsonpath-file=template", false, "List"),
            ("jsonpath={.items[0].metadata.managedFields}", false, ""),
            (
                "custom-columns=N:.metadata.name,S:size",
                false,
                "N     S\nb10   3\nb2    20\na     <none>\n",
            ),
            (
                "custom-columns-file=columns",
                false,
                "NAME   SIZE\nb10    3\nb2     20\na      <none>\n",
            ),
            (
                "table",
                false,
                "NAME   KIND\nb10    Thing\nb2     Thing\na      Thing\n",
            ),
        ] {
            assert_eq!(printed(typed, by_name, &all), wanted, "{typed}");
        }
        assert_eq!(printed("jsonpath={.kind}", true, &all[..1]), "Thing");
        assert_eq!(
            printed("jsonpath-as-json={.size}", true, &all[..1]),
            "[\n    3\n]\n"
        );
        let one: Value = serde_json::from_str(&printed("json", true, &all[..1])).unwrap();
        assert_eq!(
            one,
            json!({"kind": "Thing", "metadata": {"name": "b10"}, "size": 3})
        );
        let none: Value = serde_json::from_str(&printed("json", false, &[])).unwrap();
        assert_eq!(none["items"], json!([]));
    }

    #[test]
    fn a_format_that_is_not_there_is_told_with_those_that_are() {
        for (typed, why) in [
            ("jso", "custom-columns=NAME:PATH"),
            ("jsonpath", "-o jsonpath=…"),
            ("jsonpath={.a", "jsonpath: '{' without '}'"),
            ("custom-columns=NAME", "is not NAME:PATH"),
            ("custom-columns=NAME:.a[", "without ']'"),
            ("jsonpath-file=nothing", "reading nothing"),
        ] {
            let told = format(typed).unwrap_err();
            assert!(told.contains(why), "{typed}: {told}");
        }
    }

    #[test]
    fn sorting_puts_what_lacks_the_field_first() {
        let names = |by: &str| {
            let mut all = things();
            SortBy::parse(by).unwrap().sort(&mut all).map(|()| {
                let names = all.iter().map(Printable::reference);
                names.collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(
            names(".metadata.name").unwrap(),
            "thing/a thing/b10 thing/b2"
        );
        assert_eq!(names("{.size}").unwrap(), "thing/a thing/b10 thing/b2");
        let failure = names(".nothing").unwrap_err();
        assert!(failure.message().contains(".nothing"), "{failure:?}");
    }

    #[test]
    fn strings_that_look_like_something_else_stay_strings() {
        let texts = [
            "true",
            "no",
            "on",
            "y",
            "1",
            "1.5",
            "1e3",
            "0x10",
            "0o7",
            "007",
            "null",
            "~",
            "",
            "2026-11-23",
            "2026-11-23T20:00:00Z",
            "12:30:00",
            "- a",
            "a: b",
            "a #b",
            "*",
            "&a",
            "!t",
            "%d",
            "@x",
            "`x",
            "{a}",
            "[a]",
            "'",
            "\"",
            "|",
            ">",
            " a",
            "a ",
            "a\nb",
            "a\nb\n",
            "\ta",
            "ä",
            "--name=x",
            "100m",
            "64Mi",
            "=",
            "?",
            ".inf",
            "_1",
            "1_000",
            "+1",
            "-",
            "--- a",
            "0b1",
            "1:2",
            "<<",
        ];
        for text in texts {
            let object = json!({"key": text, text: "value", "list": [text]});
            let printed = yaml(&object);
            let read: Value = serde_saphyr::from_str(&printed).unwrap();
            assert_eq!(read, object, "{printed}");
        }
    }

    #[test]
    fn documents_are_separated() {
        assert_eq!(
            documents(&[json!({"a": 1}), json!({"b": ["x"]})]),
            "a: 1\n---\nb:\n- x\n"
        );
    }
}

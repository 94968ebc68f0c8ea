//! Emits what was recorded, through the code that publishes it.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use nomad_firehose::{
    cursor::Cursor,
    dedupe::Seen,
    record::Record,
    standin::nomad::Table,
    streams::{Change, Mode, Resource, Work, with_stream},
    watch::split::{Element, Splitter},
};
use serde::Deserialize;

/// Small enough that elements are cut in the middle, as they are on the wire.
const CHUNK_BYTES: usize = 1 << 10;

/// The body of an answer of a real server.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Version of Nomad.
    pub version: &'static str,
    /// When it was recorded, as the name of a folder.
    pub folder: String,
    /// What was asked for: a table, and how its list was asked for; or an object.
    pub name: String,
    pub body: Vec<u8>,
}

/// What comes of a list.
pub struct Emitted {
    /// In the order in which they are published.
    pub records: Vec<Record>,
    /// Objects that would be read by id, of which the recording has none.
    pub unread: Vec<String>,
}

/// What a recorded object is looked up by.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Name {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    namespace: String,
    modify_index: u64,
}

impl Recording {
    /// The table that the list or the object is of.
    pub fn table(&self) -> &str {
        let first = self.name.split(['_', '/']).next().unwrap_or_default();
        match first {
            "node" => "nodes",
            "job" => "jobs",
            table => table,
        }
    }

    /// The table of the stand-in that it is of.
    pub fn standin_table(&self) -> Table {
        match self.table() {
            "allocations" => Table::Allocations,
            "nodes" => Table::Nodes,
            "evaluations" => Table::Evaluations,
            "jobs" => Table::Jobs,
            "deployments" => Table::Deployments,
            other => panic!("no table {other}"),
        }
    }

    /// The streams that read the table.
    pub fn streams(&self) -> &'static [&'static str] {
        match self.table() {
            "allocations" => &["allocations"],
            "nodes" => &["nodes"],
            "evaluations" => &["evaluations"],
            "jobs" => &["jobs", "jobliststubs"],
            "deployments" => &["deployments"],
            other => panic!("no stream reads {other}"),
        }
    }

    /// Its elements, cut as they arrive.
    pub fn elements(&self) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for mut chunk in self.body.chunks(CHUNK_BYTES) {
            while let Some(element) = splitter.next_element(&mut chunk).unwrap() {
                match element {
                    Element::Whole(text) => found.push(text.to_vec()),
                    Element::TooLarge(bytes) => panic!("{self}: an element of {bytes} bytes"),
                }
            }
        }
        splitter.finish().unwrap();
        found
    }

    fn is_list(&self) -> bool {
        self.body.first() == Some(&b'[')
    }
}

impl std::fmt::Display for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nomad {}, {}/{}", self.version, self.folder, self.name)
    }
}

static RECORDINGS: LazyLock<Vec<Recording>> = LazyLock::new(read_all);

/// Every recorded list.
pub fn lists() -> impl Iterator<Item = &'static Recording> {
    RECORDINGS.iter().filter(|it| it.is_list())
}

/// Every node and job that was recorded in full.
pub fn objects() -> impl Iterator<Item = &'static Recording> {
    RECORDINGS.iter().filter(|it| !it.is_list())
}

/// The lists that a stream reads.
pub fn lists_of(stream: &str) -> impl Iterator<Item = &'static Recording> {
    lists().filter(move |it| it.streams().contains(&stream))
}

/// The objects that a stream emits; none for those whose list has them.
pub fn objects_of(stream: &str) -> impl Iterator<Item = &'static Recording> {
    objects().filter(move |it| it.streams()[0] == stream)
}

fn read_all() -> Vec<Recording> {
    let mut found = Vec::new();
    for version in ["1.0.18", "2.0.5"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let root = root.join(format!("nomad-{version}"));
        for folder in ["fresh", "A", "B", "blocking", "node", "end"] {
            read(version, folder, &root.join(folder), "", &mut found);
        }
    }
    assert!(!found.is_empty(), "nothing was recorded");
    found
}

fn read(
    version: &'static str,
    folder: &str,
    path: &Path,
    prefix: &str,
    found: &mut Vec<Recording>,
) {
    let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|it| it.unwrap()).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(version, folder, &entry.path(), &format!("{name}/"), found);
        } else if let Some(name) = name.strip_suffix(".body.json") {
            let body = fs::read(entry.path()).unwrap();
            let (folder, name) = (folder.to_owned(), name.to_owned());
            found.push(Recording { version, folder, name, body });
        }
    }
}

/// What a stream that starts anew emits of a list.
pub fn emit(stream: &str, list: &Recording) -> Emitted {
    let elements = list.elements();
    let objects = objects().collect();
    with_stream(stream, Emit { list, elements: &elements, objects }).unwrap()
}

/// What a stream emits of an object that was read by id.
pub fn emit_object(stream: &str, object: &Recording) -> Record {
    let elements = [object.body.clone()];
    let work = Emit { list: object, elements: &elements, objects: vec![object] };
    let mut emitted = with_stream(stream, work).unwrap();
    assert_eq!((emitted.records.len(), emitted.unread.len()), (1, 0), "{object}");
    emitted.records.remove(0)
}

/// What a stream that starts anew emits of these elements of a list, alone.
pub fn emit_elements(stream: &str, list: &Recording, elements: &[Vec<u8>]) -> Vec<Record> {
    let objects = objects().collect();
    with_stream(stream, Emit { list, elements, objects }).unwrap().records
}

struct Emit<'a> {
    list: &'a Recording,
    elements: &'a [Vec<u8>],
    objects: Vec<&'a Recording>,
}

impl Work for Emit<'_> {
    type Output = Emitted;

    fn on<R: Resource>(self) -> Emitted {
        let source = Arc::from("/nomad/global");
        let seen = Seen::new(&Cursor::new(R::KIND));
        let mut changes = Vec::new();
        for element in self.elements {
            let found = R::changes(element, &seen, Mode::Usual);
            changes.extend(found.unwrap_or_else(|err| panic!("{}: {err}", self.list)).changes);
        }
        changes.sort_by_key(|it| (it.index, it.id.clone()));
        let mut emitted = Emitted { records: Vec::new(), unread: Vec::new() };
        for change in changes {
            let body = change.body.clone().or_else(|| self.by_id(&change).map(Into::into));
            match body {
                Some(body) => {
                    let record = change.into_record::<R>(body, &source);
                    emitted
                        .records
                        .push(record.unwrap_or_else(|err| panic!("{}: {err}", self.list)));
                }
                None => emitted.unread.push(change.id.to_string()),
            }
        }
        emitted
    }
}

impl Emit<'_> {
    /// The body that a read by id gives: of the change itself where it was recorded, else of the
    /// next state that was.
    fn by_id(&self, change: &Change) -> Option<Vec<u8>> {
        let recorded = self.objects.iter().filter_map(|it| {
            if (it.version, it.table()) != (self.list.version, self.list.table()) {
                return None;
            }
            let name: Name = serde_json::from_slice(&it.body).unwrap();
            let same = name.id == *change.id && name.namespace == *change.namespace;
            let later = same && name.modify_index >= change.index.0;
            let elsewhere = it.folder != self.list.folder;
            later.then_some((name.modify_index, elsewhere, it))
        });
        let (.., found) = recorded.min_by_key(|(index, elsewhere, _)| (*index, *elsewhere))?;
        Some(found.body.clone())
    }
}

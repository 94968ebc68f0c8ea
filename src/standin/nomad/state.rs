//! The tables and their indexes.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use tokio::time::Instant;

use super::{Table, Version, variables::Variables};

/// The namespace that is always there, and the one that requests mean when they name none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";
/// The index at which a new cluster creates the default namespace.
const FIRST_INDEX: u64 = 1;

/// Namespace and id; nodes have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) id: String,
}

impl Key {
    pub(super) fn new(namespace: &str, id: &str) -> Self {
        Self { namespace: namespace.to_owned(), id: id.to_owned() }
    }

    fn of(table: Table, object: &Map<String, Value>) -> Self {
        let text = |key| object.get(key).and_then(Value::as_str);
        let namespace = match table {
            Table::Nodes => "",
            _ => text("Namespace").unwrap_or(DEFAULT_NAMESPACE),
        };
        Self::new(namespace, text("ID").unwrap_or_default())
    }
}

/// An object and how it is sent.
#[derive(Clone)]
pub(super) struct Object {
    /// The fields; none if the object is served verbatim.
    pub(super) fields: Map<String, Value>,
    pub(super) body: Bytes,
    pub(super) modify_index: u64,
}

impl Object {
    /// A member that is text; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a write did.
pub(super) struct Written {
    pub(super) table: Table,
    pub(super) object: Arc<Object>,
    pub(super) previous: Option<Arc<Object>>,
}

/// A list that is not made from objects.
#[derive(Clone)]
pub(super) enum Verbatim {
    Recorded(Bytes),
    Generated(Arc<dyn Fn() -> Box<dyn Iterator<Item = Bytes> + Send> + Send + Sync>),
}

#[derive(Clone, Default)]
pub(super) struct Rows {
    pub(super) index: u64,
    pub(super) objects: BTreeMap<Key, Arc<Object>>,
    /// Objects that are served as recorded; no list shows them.
    pub(super) recorded: BTreeMap<Key, Arc<Object>>,
    pub(super) verbatim: Option<Verbatim>,
}

#[derive(Clone)]
pub(super) struct State {
    /// The last index given out.
    pub(super) index: u64,
    allocations: Rows,
    nodes: Rows,
    evaluations: Rows,
    jobs: Rows,
    deployments: Rows,
    pub(super) namespaces: BTreeMap<String, u64>,
    pub(super) namespaces_index: u64,
    summaries: BTreeMap<Key, Arc<Map<String, Value>>>,
    summary_index: u64,
    pub(super) variables: Variables,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            index: FIRST_INDEX,
            allocations: Rows::default(),
            nodes: Rows::default(),
            evaluations: Rows::default(),
            jobs: Rows::default(),
            deployments: Rows::default(),
            namespaces: [(DEFAULT_NAMESPACE.to_owned(), FIRST_INDEX)].into(),
            namespaces_index: FIRST_INDEX,
            summaries: BTreeMap::new(),
            summary_index: 0,
            variables: Variables::default(),
        }
    }

    /// Lets locks expire that were due by now; true if anything was.
    pub(super) fn run_timers(&mut self, now: Instant) -> bool {
        let Self { index, variables, .. } = self;
        variables.run_timers(now, || {
            *index += 1;
            *index
        })
    }

    /// An older state with the present counter: a restored server numbers its log from where it was.
    pub(super) fn restored(&self, older: &Self) -> Self {
        Self { index: self.index, ..older.clone() }
    }

    pub(super) fn advance(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    pub(super) fn table(&self, table: Table) -> &Rows {
        match table {
            Table::Allocations => &self.allocations,
            Table::Nodes => &self.nodes,
            Table::Evaluations => &self.evaluations,
            Table::Jobs => &self.jobs,
            Table::Deployments => &self.deployments,
        }
    }

    pub(super) fn table_mut(&mut self, table: Table) -> &mut Rows {
        match table {
            Table::Allocations => &mut self.allocations,
            Table::Nodes => &mut self.nodes,
            Table::Evaluations => &mut self.evaluations,
            Table::Jobs => &mut self.jobs,
            Table::Deployments => &mut self.deployments,
        }
    }

    /// The index of a list: that of its table, and for jobs that of the summaries if it is higher.
    pub(super) fn list_index(&self, table: Table) -> u64 {
        match table {
            Table::Jobs => self.jobs.index.max(self.summary_index),
            _ => self.table(table).index,
        }
    }

    /// An object by id; the recorded form wins.
    pub(super) fn object(&self, table: Table, key: &Key) -> Option<&Arc<Object>> {
        let rows = self.table(table);
        rows.recorded.get(key).or_else(|| rows.objects.get(key))
    }

    /// The index of an answer about one object: its own, or that of the table if there is no such object.
    pub(super) fn object_index(&self, table: Table, key: &Key) -> u64 {
        self.object(table, key).map_or(self.table(table).index, |object| object.modify_index)
    }

    pub(super) fn put(
        &mut self,
        index: u64,
        table: Table,
        mut fields: Map<String, Value>,
    ) -> Written {
        let key = Key::of(table, &fields);
        self.index = self.index.max(index);
        let rows = self.table_mut(table);
        let previous = rows.objects.get(&key).map(|object| &object.fields);
        let kept = |name: &str| previous.and_then(|fields| fields.get(name)).cloned();
        let created = kept("CreateIndex").unwrap_or_else(|| index.into());
        if table == Table::Jobs {
            let same =
                previous.is_some_and(|previous| previous.get("Version") == fields.get("Version"));
            let specified = kept("JobModifyIndex").filter(|_| same).unwrap_or_else(|| index.into());
            fields.insert("JobModifyIndex".to_owned(), specified);
        }
        fields.insert("CreateIndex".to_owned(), created);
        fields.insert("ModifyIndex".to_owned(), index.into());
        // Values of JSON can always be encoded.
        let body = Bytes::from(serde_json::to_vec(&fields).unwrap_or_default());
        rows.recorded.remove(&key);
        let object = Arc::new(Object { fields, body, modify_index: index });
        let previous = rows.objects.insert(key, object.clone());
        rows.index = rows.index.max(index);
        rows.verbatim = None;
        Written { table, object, previous }
    }

    pub(super) fn put_recorded(&mut self, table: Table, key: Key, body: Bytes) {
        #[derive(Deserialize)]
        struct Indexed {
            #[serde(rename = "ModifyIndex")]
            modify_index: u64,
        }
        let rows = self.table_mut(table);
        let modify_index = serde_json::from_slice::<Indexed>(&body)
            .map_or(rows.index, |object| object.modify_index);
        rows.recorded.insert(key, Arc::new(Object { fields: Map::new(), body, modify_index }));
    }

    /// Removes an object; its last state, if it was not served as recorded.
    pub(super) fn remove(&mut self, index: u64, table: Table, key: &Key) -> Option<Arc<Object>> {
        let rows = self.table_mut(table);
        let last = rows.objects.remove(key);
        rows.recorded.remove(key);
        rows.index = index;
        rows.verbatim = None;
        if table == Table::Jobs {
            self.summaries.remove(key);
            self.summary_index = index;
        }
        last
    }

    pub(super) fn put_summary(&mut self, index: u64, key: Key, mut summary: Map<String, Value>) {
        let created = self.summaries.get(&key).and_then(|old| old.get("CreateIndex")).cloned();
        summary.insert("JobID".to_owned(), key.id.clone().into());
        summary.insert("Namespace".to_owned(), key.namespace.clone().into());
        summary.insert("CreateIndex".to_owned(), created.unwrap_or_else(|| index.into()));
        summary.insert("ModifyIndex".to_owned(), index.into());
        self.summaries.insert(key, Arc::new(summary));
        self.summary_index = index;
    }

    /// The summary of a job; one without tasks if none was set.
    pub(super) fn summary(&self, key: &Key, job: &Object) -> Value {
        match self.summaries.get(key) {
            Some(summary) => Value::Object((**summary).clone()),
            None => json!({
                "JobID": key.id,
                "Namespace": key.namespace,
                "Summary": {},
                "Children": { "Pending": 0, "Running": 0, "Dead": 0 },
                "CreateIndex": job.fields.get("CreateIndex"),
                "ModifyIndex": job.fields.get("CreateIndex"),
            }),
        }
    }

    pub(super) fn put_namespace(&mut self, index: u64, name: &str) {
        self.namespaces.insert(name.to_owned(), index);
        self.namespaces_index = index;
    }

    /// The body of `/v1/namespaces`.
    pub(super) fn namespaces(&self, version: Version) -> String {
        let namespace = |(name, index): (&String, &u64)| {
            let mut fields = json!({
                "Name": name,
                "Description": if name == DEFAULT_NAMESPACE { "Default shared namespace" } else { "" },
                "Quota": "",
                "Hash": "",
                "CreateIndex": index,
                "ModifyIndex": index,
            });
            if let (Version::V2_0, Some(fields)) = (version, fields.as_object_mut()) {
                for newer in NEWER_NAMESPACE_KEYS {
                    fields.insert(newer.to_owned(), Value::Null);
                }
            }
            fields
        };
        Value::Array(self.namespaces.iter().map(namespace).collect()).to_string()
    }
}

const NEWER_NAMESPACE_KEYS: [&str; 7] = [
    "Capabilities",
    "ConsulConfiguration",
    "Meta",
    "NodePoolConfiguration",
    "OptionalExtraClaims",
    "RequiredExtraClaims",
    "VaultConfiguration",
];

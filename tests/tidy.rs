//! What the house looks like: layers, sizes, documents. A check is a function over sources that
//! returns what is wrong; in `faults` there is a source for each that it must find something wrong
//! with.

use std::{fs, path::Path};

mod faults;
mod logs;
mod rust;

use rust::{
    Token::{self, Comment, Sign, Text, Word},
    named_modules, tokens,
};

/// A module imports modules of lower layers only; those of one layer do not know each other.
const LAYERS: [&[&str]; 8] = [
    &["run"],
    &["pipeline"],
    &["watch", "deliver"],
    &["streams", "sink", "leader"],
    &["api", "admin", "filter"],
    &["record", "dedupe", "metrics", "telemetry"],
    &["cursor", "env", "error", "finding", "backoff", "shutdown"],
    &["failpoint"],
];

/// Apart from the layers: it plays the servers, and shares nothing with what it tests.
const APART: &str = "standin";

/// A file beyond this is to be split.
const MAX_LINES: usize = 400;

/// A binary is a call into the library, but for the demo, which brings its own world.
const MAX_BIN_LINES: usize = 12;
const LONG_BINS: [&str; 1] = ["bin/firehose-demo.rs"];

/// The only files that may speak HTTP on their own: those around the generated clients, and a sink.
const HTTP: [&str; 2] = ["src/api", "src/sink/http"];
/// Where requests leave: to Nomad and Consul in one place.
const EXECUTES: [&str; 2] = ["src/api.rs", "src/sink/http.rs"];
/// Builds requests to learn what header the client would send, and sends none.
const BUILDS: &str = "src/api/connect.rs";

/// Beside the leaders, and none itself.
const SHARED_BY_LEADERS: &str = "src/leader/lease.rs";

/// Beside the sinks, and none themselves.
const SHARED_BY_SINKS: [&str; 2] = ["src/sink/aws.rs", "src/sink/template.rs"];

/// Read by the compiler, and by no process.
const AT_BUILD: &str = "NOMAD_FIREHOSE_COMMIT";

/// What variables begin with.
const PREFIXES: [&str; 4] = ["NOMAD_", "CONSUL_", "SINK_", "LOG_"];
/// The part of a page that quotes the log, whatever its level.
const LOG_HEADING: &str = "# What the log says";

/// A file with Rust in it.
struct Source {
    path: String,
    text: String,
    tokens: Vec<Token>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), tokens: tokens(text) }
    }

    fn is_below(&self, dir: &str) -> bool {
        self.path.starts_with(&format!("{dir}/")) || self.path == format!("{dir}.rs")
    }

    /// The modules that the file is in, outermost first.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').collect()
    }

    fn has(&self, wanted: &[Token]) -> bool {
        self.tokens.windows(wanted.len()).any(|it| it == wanted)
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|it| if let Text(text) = it { Some(&**text) } else { None })
    }
}

fn word(text: &str) -> Token {
    Word(text.to_owned())
}

/// Every source of the package.
fn all() -> Vec<Source> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for dir in ["src", "bin", "tests", "benches", "fuzz"] {
        walk(root, &root.join(dir), &mut found);
    }
    found.push(source(root, &root.join("build.rs")));
    assert!(found.len() > 50, "only {} files were found", found.len());
    found
}

fn below(dir: &str) -> Vec<Source> {
    all().into_iter().filter(|it| it.is_below(dir)).collect()
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(source(root, &path));
        }
    }
}

fn source(root: &Path, path: &Path) -> Source {
    let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    Source::new(&name, &fs::read_to_string(path).unwrap())
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn readme() -> String {
    page("README.md")
}

/// The README, and the pages of receivers, which have the variables of those that a build can lack.
fn configuration() -> String {
    let sinks = nomad_firehose::sink::optional().map(|(_, feature)| format!("docs/{feature}.md"));
    let pages = sinks.filter(|it| Path::new(env!("CARGO_MANIFEST_DIR")).join(it).exists());
    pages.map(|it| page(&it)).chain([readme()]).collect()
}

/// The README, and what is below `docs`.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let names = docs.map(|it| format!("docs/{}", it.unwrap().file_name().to_str().unwrap()));
    let names = names.filter(|it| it.ends_with(".md"));
    names.chain(["README.md".to_owned()]).map(|it| (it.clone(), page(&it))).collect()
}

/// Imports that go up, or across a layer.
fn wrong_imports(sources: &[Source]) -> Vec<String> {
    let layer = |module: &str| LAYERS.iter().position(|it| it.contains(&module));
    let mut wrong = Vec::new();
    for file in sources {
        let modules = file.modules();
        let own = modules[0];
        for module in named_modules(&file.tokens, modules.len()) {
            let fine = match (own, module.as_str()) {
                (own, module) if own == module => true,
                ("lib", _) => true,
                // What the crate itself has are constants.
                (_, name) if name == name.to_ascii_uppercase() && name != "*" => true,
                (own, module) => match (layer(own), layer(module)) {
                    (Some(own), Some(module)) => own < module,
                    _ => false,
                },
            };
            if !fine {
                wrong.push(format!("{} must not import {module}", file.path));
            }
        }
    }
    wrong
}

/// Modules of the library that have no place in the layers, and places without a module.
fn misplaced_modules(sources: &[Source]) -> Vec<String> {
    let placed: Vec<&str> = LAYERS.iter().flat_map(|it| it.iter().copied()).collect();
    let there: Vec<&str> = sources.iter().map(|it| it.modules()[0]).collect();
    let known = |it: &&str| placed.contains(it) || [APART, "lib"].contains(it);
    let homeless = there.iter().filter(|it| !known(it)).map(|it| format!("{it} is in no layer"));
    let empty = placed.iter().filter(|it| !there.contains(it));
    homeless.chain(empty.map(|it| format!("there is no module {it}"))).collect()
}

fn long_files(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources {
        let lines = file.text.lines().count();
        let bin = file.is_below("bin") && !LONG_BINS.contains(&file.path.as_str());
        let limit = if bin { MAX_BIN_LINES } else { MAX_LINES };
        if lines > limit {
            wrong.push(format!("{} has {lines} lines, and {limit} is the limit", file.path));
        }
    }
    wrong
}

/// The variables that literals of the sources name.
fn variables(sources: &[Source]) -> Vec<String> {
    let name = |it: &char| it.is_ascii_uppercase() || it.is_ascii_digit() || *it == '_';
    let is_variable = |text: &&str| {
        let known = PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        known && text.chars().all(|it| name(&it)) && !text.ends_with('_') && *text != AT_BUILD
    };
    let mut found: Vec<String> =
        sources.iter().flat_map(|it| it.texts()).filter(is_variable).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// The names in code style that a document has, each split where it is not part of a name.
fn documented(readme: &str) -> Vec<&str> {
    let code = readme.split('`').skip(1).step_by(2);
    code.flat_map(|it| it.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
}

/// The variables that the program reads.
pub fn variables_read() -> Vec<String> {
    variables(&below("src"))
}

fn undocumented_variables(sources: &[Source], readme: &str) -> Vec<String> {
    let documented = documented(readme);
    variables(sources).into_iter().filter(|it| !documented.contains(&it.as_str())).collect()
}

/// Variables of ours in a document that nothing reads.
fn imagined_variables(sources: &[Source], readme: &str) -> Vec<String> {
    let read = variables(sources);
    let ours = |it: &&str| {
        let rest = ["NOMAD_FIREHOSE_", "SINK_"].iter().find_map(|prefix| it.strip_prefix(prefix));
        rest.is_some_and(|rest| !rest.is_empty()) && *it != AT_BUILD
    };
    let named = documented(readme).into_iter().filter(ours).map(str::to_owned);
    named.filter(|it| !read.contains(it)).collect()
}

/// Messages that a document quotes and nobody logs.
fn imagined_messages(sources: &[Source], readme: &str) -> Vec<String> {
    let section = readme.split(LOG_HEADING).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let quoted: Vec<&str> = section
        .lines()
        .filter_map(|it| it.strip_prefix("| `")?.split_once("` |").map(|(text, _)| text))
        .collect();
    if quoted.is_empty() {
        return vec![format!("nothing is quoted below {LOG_HEADING}")];
    }
    let logged = |it: &&str| sources.iter().any(|file| file.texts().any(|text| text.contains(it)));
    quoted.into_iter().filter(|it| !logged(it)).map(str::to_owned).collect()
}

/// Files that the map does not name, and files that it names and that are not there.
fn unmapped(sources: &[Source], map: &str) -> Vec<String> {
    let named: Vec<&str> = map.split('`').filter(|it| it.ends_with(".rs")).collect();
    let there: Vec<&str> = sources.iter().map(|it| it.path.as_str()).collect();
    let lacking = there.iter().filter(|it| !named.contains(it) && !it.contains(APART));
    let gone = named.iter().filter(|it| it.starts_with("src/") && !there.contains(it));
    lacking.chain(gone).map(|it| (*it).to_owned()).collect()
}

/// Requests to Nomad or Consul that do not go through the generated clients.
fn own_requests(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources {
        let path = &file.path;
        let http = HTTP.iter().any(|it| file.is_below(it));
        if !http && file.has(&[word("reqwest")]) {
            wrong.push(format!("{path} names reqwest"));
        }
        if !EXECUTES.contains(&path.as_str()) && file.has(&[Sign('.'), word("execute"), Sign('(')])
        {
            wrong.push(format!("{path} executes a request"));
        }
        for method in ["get", "post", "put", "patch", "delete", "head", "request"] {
            let call = [Sign('.'), word(method), Sign('(')];
            let field = [&[word("client")][..], &call].concat();
            let getter = [&[word("client"), Sign('('), Sign(')')][..], &call].concat();
            if path != BUILDS && (file.has(&field) || file.has(&getter)) {
                wrong.push(format!("{path} builds a request of its own with `{method}`"));
            }
        }
        if path == BUILDS && file.has(&[Sign('.'), word("send"), Sign('(')]) {
            wrong.push(format!("{path} sends a request"));
        }
    }
    wrong
}

/// What is not finished, or hidden from `cargo test`.
fn unfinished(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources {
        for name in ["todo", "unimplemented"] {
            if file.has(&[word(name), Sign('!')]) {
                wrong.push(format!("{} has {name}!", file.path));
            }
        }
        if file.has(&[Sign('#'), Sign('['), word("ignore")]) {
            wrong.push(format!("{} has a test that is ignored", file.path));
        }
        for token in &file.tokens {
            let Comment(text) = token else { continue };
            if ["TODO", "FIXME", "XXX"].iter().any(|it| text.contains(it)) {
                wrong.push(format!("{}: {text}", file.path));
            }
        }
    }
    wrong
}

/// Files of a folder that the table in the file beside it does not reach. The table is all that
/// follows `table`.
fn unreachable(sources: &[Source], module: &str, table: &[&str]) -> Vec<String> {
    let table: Vec<Token> = table.iter().map(|it| word(it)).collect();
    let home = format!("src/{module}.rs");
    let Some(tokens) = sources.iter().find(|it| it.path == home).map(|it| &it.tokens) else {
        return vec![format!("there is no {home}")];
    };
    let Some(start) = tokens.windows(table.len()).position(|it| *it == table) else {
        return vec![format!("there is no table in {home}")];
    };
    let reached = |name: &str| {
        let path = [word(name), Sign(':'), Sign(':')];
        tokens[start..].windows(3).any(|it| *it == path)
    };
    let declared = |name: &str| {
        let line = [word("mod"), word(name), Sign(';')];
        tokens.windows(3).any(|it| *it == line)
    };
    let files = sources.iter().map(Source::modules).filter(|it| it.len() == 2 && it[0] == module);
    files
        .filter(|it| !(declared(it[1]) && reached(it[1])))
        .map(|it| format!("{} is not reached from the table in {home}", it[1]))
        .collect()
}

fn nothing(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn modules_import_lower_layers_only() {
    nothing(misplaced_modules(&below("src")));
    nothing(wrong_imports(&below("src")));
}

#[test]
fn files_are_short_and_binaries_are_a_call() {
    nothing(long_files(&all()));
}

#[test]
fn every_variable_that_is_read_is_documented_and_no_other() {
    let sources = below("src");
    nothing(undocumented_variables(&sources, &configuration()));
    for (_, text) in pages() {
        nothing(imagined_variables(&sources, &text));
    }
}

#[test]
fn pages_quote_messages_that_are_logged() {
    let quoting: Vec<_> = pages().into_iter().filter(|it| it.1.contains(LOG_HEADING)).collect();
    assert!(quoting.len() > 3, "each receiver has a page with messages");
    let sources = below("src");
    for (_, text) in quoting {
        nothing(imagined_messages(&sources, &text));
    }
}

#[test]
fn the_map_has_every_file() {
    nothing(unmapped(&below("src"), &page("ARCHITECTURE.md")));
}

#[test]
fn every_request_goes_through_the_generated_clients() {
    nothing(own_requests(&below("src")));
}

#[test]
fn nothing_is_unfinished_or_ignored() {
    nothing(unfinished(&all()));
}

#[test]
fn every_sink_and_every_leader_is_reached_from_its_table() {
    let sinks = below("src").into_iter().filter(|it| !SHARED_BY_SINKS.contains(&&*it.path));
    nothing(unreachable(&sinks.collect::<Vec<_>>(), "sink", &["const", "SINKS"]));
    let backends = below("src").into_iter().filter(|it| it.path != SHARED_BY_LEADERS);
    let backends: Vec<Source> = backends.collect();
    nothing(unreachable(&backends, "leader", &["fn", "from_env"]));
}

//! Pages, cut into the blocks that are between fences.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What an annotation begins with; it stands on the line before a block.
const NOTE: &str = "<!-- test:";
const FENCE: &str = "```";
/// Not documentation, or not ours.
const SKIPPED: [&str; 4] = ["target", ".git", "corpus", "artifacts"];

/// A page of the documentation.
pub struct Page {
    /// Its path, from the root of the repository.
    pub path: String,
    pub text: String,
    pub blocks: Vec<Block>,
}

/// What is between two fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its first fence.
    pub line: usize,
    pub language: String,
    /// What the comment before it says to the test.
    pub note: Option<String>,
    pub text: String,
    /// Whether nothing but blank lines and comments is between it and the block before it.
    pub adjacent: bool,
    /// Whether there is a block of commands before it.
    pub after_commands: bool,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the repository.
pub fn all() -> Vec<Page> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    let page = |it: PathBuf| {
        let path = it.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        Page::new(&path, &fs::read_to_string(&it).unwrap())
    };
    found.into_iter().map(page).collect()
}

/// The pages whose commands somebody may follow.
pub fn followed() -> Vec<Page> {
    let is = |it: &Page| {
        ["docs/", "deploy/"].iter().any(|dir| it.path.starts_with(dir))
            || ["README.md", "CONTRIBUTING.md"].contains(&it.path.as_str())
    };
    all().into_iter().filter(is).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() || SKIPPED.contains(&name) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|it| it == "md") {
            found.push(path);
        }
    }
}

impl Page {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), blocks: blocks(text) }
    }

    /// The page with everything between fences left out.
    pub fn prose(&self) -> String {
        let mut inside = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with(FENCE) {
                inside = !inside;
            } else if !inside {
                prose.push_str(line);
            }
            prose.push('\n');
        }
        prose
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut found, mut open): (Vec<Block>, Option<(usize, Block)>) = (Vec::new(), None);
    let (mut note, mut adjacent) = (None, false);
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        match &mut open {
            Some(_) if trimmed.starts_with(FENCE) => {
                found.extend(open.take().map(|(_, block)| block));
                adjacent = true;
            }
            Some((outer, block)) => {
                // A block within a list is indented with it.
                block.text.push_str(line.get(*outer..).unwrap_or_else(|| line.trim_start()));
                block.text.push('\n');
            }
            None if trimmed.starts_with(FENCE) => {
                let language = trimmed.trim_start_matches('`').trim().to_owned();
                let (line, note, text) = (number + 1, note.take(), String::new());
                let after_commands = found.iter().any(|it| it.language == "sh");
                let block = Block { line, language, note, text, adjacent, after_commands };
                open = Some((indent, block));
            }
            None if trimmed.starts_with(NOTE) => {
                note = trimmed[NOTE.len()..].split("-->").next().map(|it| it.trim().to_owned());
            }
            None if trimmed.is_empty() || trimmed.starts_with("<!--") => {}
            None => (note, adjacent) = (None, false),
        }
    }
    assert!(open.is_none(), "a block has no end");
    found
}

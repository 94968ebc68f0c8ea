//! Links and paths lead somewhere.

use std::{
    collections::{HashMap, HashSet},
    path::{Component, Path, PathBuf},
};

use super::pages::{self, Page};

/// What a path in code style begins with, if it is one of this repository.
const OURS: [&str; 12] = [
    ".ci/",
    "benches/",
    "bin/",
    "deploy/",
    "docs/",
    "fuzz/",
    "openapi/",
    "schemas/",
    "snapshots/",
    "src/",
    "tests/",
    "tools/",
];

/// The targets of the links in a page, without what is in code.
fn links(page: &Page) -> Vec<String> {
    let prose = page.prose();
    let plain: String = prose.split('`').step_by(2).collect();
    let targets = plain.split("](").skip(1).filter_map(|it| it.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The names under which a page's headings can be linked to.
fn anchors(page: &Page) -> HashSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = HashSet::new();
    for line in page.prose().lines().filter(|it| it.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim();
        // A link within a heading counts with its text.
        let heading: String =
            heading.split("](").map(|it| it.rsplit(')').next().unwrap()).collect();
        let kept = heading.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        let slug: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let times = seen.entry(slug.clone()).or_default();
        found.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    found
}

/// The path that a link in `page` leads to, from the root.
fn target(page: &str, link: &str) -> PathBuf {
    let mut path = Path::new(page).parent().unwrap().to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{page}: {link} leads out"),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

/// The links of a page that lead nowhere, where `exists` says what is there.
fn broken(page: &Page, all: &[Page], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for link in links(page) {
        if link.contains("://") {
            continue;
        }
        let (file, anchor) = link.split_once('#').map_or((&*link, None), |it| (it.0, Some(it.1)));
        let own = PathBuf::from(&page.path);
        let path = if file.is_empty() { own } else { target(&page.path, file) };
        let headings = |anchor: &str| {
            let page = all.iter().find(|it| Path::new(&it.path) == path);
            page.is_some_and(|it| anchors(it).contains(anchor))
        };
        if !exists(&path) {
            wrong.push(format!("{}: {link} leads nowhere", page.path));
        } else if anchor.is_some_and(|it| !headings(it)) {
            wrong.push(format!("{}: {link} has no such heading", page.path));
        }
    }
    wrong
}

fn is_there(path: &Path) -> bool {
    pages::root().join(path).exists()
}

/// Paths in code style that are not there.
fn imagined(page: &Page) -> Vec<String> {
    let prose = page.prose();
    let code = prose.split('`').skip(1).step_by(2);
    let ours = code.filter(|it| OURS.iter().any(|dir| it.starts_with(dir)));
    let plain = ours.filter(|it| {
        it.chars().all(|it| it.is_alphanumeric() || "/._-".contains(it)) && !it.contains("...")
    });
    let wrong = plain.filter(|it| !is_there(Path::new(it)));
    wrong.map(|it| format!("{}: there is no {it}", page.path)).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let all = pages::all();
    let wrong: Vec<String> = all.iter().flat_map(|it| broken(it, &all, is_there)).collect();
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn every_path_that_a_page_names_is_there() {
    let wrong: Vec<String> = pages::all().iter().flat_map(imagined).collect();
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn every_page_below_docs_is_in_the_index() {
    let all = pages::all();
    let index = all.iter().find(|it| it.path == "docs/README.md").unwrap();
    let listed: Vec<PathBuf> = links(index).iter().map(|it| target(&index.path, it)).collect();
    let lacking = all.iter().map(|it| &it.path).filter(|it| {
        it.starts_with("docs/") && **it != index.path && !listed.contains(&PathBuf::from(it))
    });
    assert_eq!(lacking.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let headings = "# Here\n\n## It is `so`, [or](c.md) not\n\n## Twice\n\n## Twice\n";
    let exists = |it: &Path| ["README.md", "docs/a.md"].iter().any(|name| Path::new(name) == it);
    for (link, fine) in [
        ("a.md#it-is-so-or-not", true),
        ("#twice-1", true),
        ("#twice-2", false),
        ("../docs/a.md#here", true),
        ("../README.md", true),
        ("../README.md#there", false),
        ("README.md", false),
        ("https://elsewhere.example/", true),
    ] {
        let own = Page::new("docs/a.md", headings);
        let page = Page::new("docs/a.md", &format!("[x]({link}) `[y](gone.md)`\n"));
        let wrong = broken(&page, &[own], exists);
        assert_eq!(wrong.is_empty(), fine, "{link}: {wrong:?}");
    }
}

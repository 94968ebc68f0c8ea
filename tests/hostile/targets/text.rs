//! Lists and lines as they arrive, in whatever pieces.

use nomad_firehose::{
    streams::Topic,
    watch::{
        lines::{Commit, Line, Lines},
        split::{Element, SplitError, Splitter},
    },
};
use serde_json::value::RawValue;

/// An element: its text, or how long it was.
type Cut = Result<Vec<u8>, usize>;

fn split(body: &[u8], size: usize, limit: usize) -> (Vec<Cut>, Result<(), SplitError>) {
    let mut splitter = Splitter::new(limit);
    let mut found = Vec::new();
    for mut chunk in body.chunks(size) {
        loop {
            match splitter.next_element(&mut chunk) {
                Ok(Some(Element::Whole(text))) => found.push(Ok(text.to_vec())),
                Ok(Some(Element::TooLarge(size))) => found.push(Err(size)),
                Ok(None) => break,
                Err(err) => return (found, Err(err)),
            }
        }
    }
    (found, splitter.finish())
}

/// Elements are those that a JSON parser finds, wherever the body is cut.
pub fn splitter(input: &[u8]) {
    let Some(([size, limit], body)) = input.split_first_chunk::<2>() else { return };
    let (whole, end) = split(body, body.len().max(1), usize::MAX);
    let (pieces, other) = split(body, 1 + usize::from(*size), usize::MAX);
    assert_eq!(pieces, whole);
    // Only how much of a body that is no list is shown depends on how it arrives.
    assert!(match (&end, &other) {
        (Err(SplitError::NotAList(_)), Err(SplitError::NotAList(_))) => true,
        _ => end == other,
    });
    for err in [&end, &other].into_iter().filter_map(|it| it.as_ref().err()) {
        super::is_brief(&err.to_string());
    }

    let limit = usize::from(*limit);
    let (limited, _) = split(body, 1 + usize::from(*size), limit);
    let wanted = whole.iter().flatten().map(|it| match it.len() {
        size if size > limit => Err(size),
        _ => Ok(it.clone()),
    });
    assert_eq!(limited, wanted.collect::<Vec<_>>());

    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(values) => {
            let values = values.iter().map(|it| Ok(it.get().as_bytes().to_vec()));
            assert_eq!(whole, values.collect::<Vec<Cut>>());
            assert_eq!(end, Ok(()));
        }
        // Whoever decodes the elements finds what the splitter has not.
        Err(err) if end.is_ok() => {
            let is_json = |it: &Vec<u8>| serde_json::from_slice::<&RawValue>(it).is_ok();
            assert!(!whole.iter().flatten().all(is_json), "{err}");
        }
        Err(_) => (),
    }
}

/// Lines are what is between line breaks, wherever the body is cut; and a commit shows the objects
/// that it has.
pub fn lines(input: &[u8]) {
    let Some(([size, limit], body)) = input.split_first_chunk::<2>() else { return };
    // Most are of a length that commits have.
    let limit = usize::from(*limit) * 16;
    let mut lines = Lines::new(limit);
    let mut found = Vec::new();
    for chunk in body.chunks(1 + usize::from(*size)) {
        lines.push(chunk);
        while let Some(line) = lines.next_line() {
            found.push(line);
        }
    }
    let mut wanted: Vec<&[u8]> = body.split(|it| *it == b'\n').collect();
    let rest = wanted.pop().unwrap_or_default();
    assert_eq!(found.len(), wanted.len());
    for (line, wanted) in found.iter().zip(wanted) {
        match line {
            Line::Whole(text) => {
                assert!(text.len() <= limit && text == wanted);
                commit(text);
            }
            Line::TooLong(size) => assert!(*size > limit && *size == wanted.len()),
        }
    }
    if rest.len() <= limit {
        assert_eq!(lines.rest(), rest);
    }
    assert!(lines.rest().len() <= limit + 256);
}

fn commit(line: &[u8]) {
    let commit = match Commit::read(line) {
        Ok(commit) => commit,
        Err(err) => return super::is_brief(&nomad_firehose::error::without_values(&err)),
    };
    let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    for name in ["Allocation", "Job", "Evaluation", "Deployment", "Node"] {
        let objects: Vec<_> = commit.objects(Topic::Carries(name)).collect();
        // A parser unescapes keys, and Nomad escapes none.
        let Some(value) = value.as_ref().filter(|_| !line.contains(&b'\\')) else { continue };
        let events = value["Events"].as_array().into_iter().flatten();
        let events: Vec<_> = events.filter(|it| it["Topic"] == name).collect();
        assert_eq!(objects.len(), events.len());
        for (object, event) in objects.into_iter().zip(events) {
            let object = object.map(|it| serde_json::from_slice::<serde_json::Value>(it).unwrap());
            assert_eq!(object.as_ref(), event["Payload"].get(name));
        }
    }
}

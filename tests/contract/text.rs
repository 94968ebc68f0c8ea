//! JSON as text, so that every number and escape counts as it is written.

use nomad_firehose::record::json;

/// The members of an object, as written.
pub fn members(object: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let text = |it: &[u8]| String::from_utf8(it.to_vec()).unwrap();
    json::members(object.as_bytes(), |key, value| found.push((text(key), text(value))));
    found
}

/// A member of an object, as written; an empty text where there is none.
pub fn member(object: &str, key: &str) -> String {
    let found = members(object).into_iter().find(|(it, _)| it == key);
    found.map(|(_, value)| value).unwrap_or_default()
}

/// The items of an array, as written.
pub fn items(array: &str) -> Vec<String> {
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(array).unwrap();
    items.into_iter().map(|it| it.get().to_owned()).collect()
}

/// The same text without the white space between its parts.
pub fn compact(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let mut keep = |it: &char| {
        let keep = in_string || !it.is_ascii_whitespace();
        in_string ^= *it == '"' && !escaped;
        escaped = in_string && *it == '\\' && !escaped;
        keep
    };
    text.chars().filter(|it| keep(it)).collect()
}

/// The same value with the keys of every object in another order.
pub fn reordered(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'{') => {
            let mut members = members(text);
            members.reverse();
            let member =
                |(key, value): &(String, String)| format!("\"{key}\":{}", reordered(value));
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        Some(b'[') => {
            let items: Vec<String> = items(text).iter().map(|it| reordered(it)).collect();
            format!("[{}]", items.join(","))
        }
        _ => text.to_owned(),
    }
}

#[test]
fn a_reordered_text_is_the_same_value() {
    let text = r#"{"a":[1.50,{"b":"x\"}","c":{}}],"d":null}"#;
    assert_eq!(reordered(text), r#"{"d":null,"a":[1.50,{"c":{},"b":"x\"}"}]}"#);
    assert_eq!(compact("{ \"a b\\\" \" :\n [ 1 ] }"), r#"{"a b\" ":[1]}"#);
}

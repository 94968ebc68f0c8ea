use bytes::Bytes;

use super::*;
use crate::{cursor::Index, record::tests::record};

fn of(body: &str) -> Record {
    let mut record = Record { body: Bytes::copy_from_slice(body.as_bytes()), ..record("k", 0) };
    record.meta.time = Some("2026-11-23T15:23:06.5Z".to_owned());
    record.meta.namespace = "default".into();
    record
}

fn judged(expression: &str, body: &str) -> Result<bool, String> {
    Filter::parse(expression).map_err(|err| err.to_string())?.judge(&of(body)).verdict
}

fn wrong(expression: &str) -> String {
    match Filter::parse(expression) {
        Ok(_) => panic!("{expression} is taken"),
        Err(err) => err.to_string(),
    }
}

#[track_caller]
fn holds(expression: &str, body: &str) {
    assert_eq!(judged(expression, body), Ok(true), "{expression} of {body}");
}

#[test]
fn the_variables_are_the_attributes_and_the_payload() {
    let body = r#"{"Status":"down","N":1}"#;
    for expression in [
        "id == 'nodes//n\"1/7/00'",
        "source == '/nomad/global' && stream == 'nodes'",
        "type == \"nomad.node.changed\" && subject == 'n1'",
        "time == timestamp('2026-11-23T15:23:06.5Z')",
        "time > timestamp('2026-11-23T16:23:06+01:00')",
        "time - timestamp('2026-11-23T15:23:06Z') == duration('500ms')",
        "time + duration('-1h') < time && duration('1s') + duration('1s') > duration('1s')",
        "nomadindex == 7 && nomadindex > 6 && nomadindex < 7.5",
        "nomadnamespace == 'default'",
        "data.Status == 'down' && data['N'] == 1",
        "type(data.N) == int && type(data) == map",
    ] {
        holds(expression, body);
    }
    let mut none = of(body);
    none.meta.time = None;
    assert_eq!(Filter::parse("time == null").unwrap().judge(&none).verdict, Ok(true));
    none.meta.index = Index(u64::MAX);
    let large = Filter::parse("nomadindex > 9223372036854775807").unwrap();
    assert_eq!(large.judge(&none).verdict, Ok(true));
}

#[test]
fn whole_numbers_are_exact_to_64_bits() {
    let body = r#"{"Time":1795447383830703588,"Max":18446744073709551615,"Min":-9223372036854775808,
        "Over":18446744073709551616,"Half":0.5,"One":1.0,"Exp":1e3}"#;
    for expression in [
        "data.Time == 1795447383830703588 && data.Time != 1795447383830703587",
        "data.Time > 1795447383830703587",
        "data.Max == 18446744073709551615u && data.Max > data.Time && data.Min < data.Max",
        "data.Min == -9223372036854775808 && data.Half < 1 && data.One == 1 && data.Exp == 1000",
        "data.Over > 1.8e19 && type(data.Over) == double",
        "data.Time + 1 == 1795447383830703589",
    ] {
        holds(expression, body);
    }
    let too_large = judged("data.Time * 1000 > 0", body).unwrap_err();
    assert_eq!(too_large, "a number becomes too large");
}

#[test]
fn lists_and_objects_of_the_payload_are_like_those_of_the_language() {
    let body = r#"{"L":["a","b"],"N":[1,2],"O":{"x":{"y":[{"z":null}]}},"E":[],"S":"grün"}"#;
    for expression in [
        "'a' in data.L && !('c' in data.L) && 'x' in data.O && size(data.L) == 2",
        "data.L == ['a', 'b'] && ['a', 'b'] == data.L && data.L != ['b', 'a'] && [] == data.E",
        "data.N == [1.0, 2u] && data.O == {'x': {'y': [{'z': null}]}}",
        "{'x': {'y': [{'z': null}]}} == data.O && data.O == data.O && data.L != data.N",
        "data.O.x.y[0].z == null && has(data.O.x) && !has(data.O.q)",
        "data.L.exists(it, it == 'b') && data.L.all(it, size(it) == 1)",
        "data.N.map(it, it + 1) == [2, 3] && data.N.filter(it, it > 1) == [2]",
        "data.N.exists_one(it, it == 1) && data.O.all(key, key == 'x')",
        "data.S.size() == 4 && data.S.startsWith('gr') && data.S.contains('\u{fc}')",
        "data.S.matches('^gr.n$') && matches(data.S, '(?i)^GR') && !data.S.matches('\\\\d')",
        "data.L.exists(it, it.matches('^b')) && data.L[1] + 'x' == 'bx'",
        "[data.L, data.N].exists(it, it == [1, 2])",
        "(data.E.size() > 0 ? data.E[0] : 'none') == 'none'",
    ] {
        holds(expression, body);
    }
}

#[test]
fn what_is_wrong_with_an_expression_is_said_with_its_place() {
    for (expression, why) in [
        ("a +", "line 1, column 4, at the end: mismatched input"),
        ("type == 'x", "line 1, column 9, at `'x`: unterminated string literal"),
        ("true &&\n  zone.b", "line 2, column 3, at `zone.b`: there is no variable `zone`"),
        ("date.Status == ''", "there is no variable `date`; did you mean `data`?"),
        ("data.date == 1 && date", "line 1, column 19, at `date`: there is no variable"),
        ("'date' == date", "line 1, column 11, at `date`: there is no variable"),
        ("foo(1)", "line 1, column 1, at `foo(1)`: there is no function `foo`"),
        ("data.X.startWith('a')", "`startWith`; did you mean `startsWith`?"),
        ("size(1, 2) > 0", "`size` is used as in size(x)"),
        ("data.L.exists(x)", "`exists` is used as in list.exists(x, condition)"),
        ("has(data)", "line 1, column 5, at `data)`: invalid argument to has() macro"),
        ("data.X", ""),
        ("data.X && type", "line 1, column 8, at `&& type`: `&&` wants true or false"),
        ("!'x'", "at `!'x'`: `!` wants true or false, and not a value of type string"),
        ("type", "its result is a value of type string, and never true or false"),
        ("1 + 1", "its result is a value of type number, text or time"),
        ("size(data.X)", "its result is a value of type int"),
        ("data.L.map(x, x)", "its result is a value of type list"),
        ("data.X ? 'a' : 'b'", "its result is a value of type string"),
        ("data.X.matches('(')", "no regular expression: unclosed group"),
        ("data.X.matches(data.Y)", "the regular expression has to be a text in quotes"),
        ("Foo{a: 1}.a", "there is no type `Foo`"),
        (".type == 'a'", "there is no variable"),
        ("", "line 1, column 1, at the end"),
    ] {
        match Filter::parse(expression) {
            Ok(_) => assert_eq!(why, "", "{expression}"),
            Err(err) => {
                let said = err.to_string();
                assert!(!why.is_empty() && said.contains(why), "{expression}: {said}");
                assert!(!said.contains('\n'), "{said}");
            }
        }
    }
}

#[test]
fn what_is_too_long_or_too_deep_is_refused() {
    let long = format!("type == '{}'", "x".repeat(4_096));
    assert_eq!(wrong(&long), "has 4106 bytes, and 4096 is the most");
    for (open, close) in [("[", "]"), ("size(", ")"), ("-(", ")"), ("data.a.exists(x, ", ")")] {
        let n = 4_000 / (open.len() + close.len());
        let text = format!("{}true{} == 1", open.repeat(n), close.repeat(n));
        let said = wrong(&text);
        assert!(said.contains("nested more than 40 deep"), "{open}: {said}");
    }
    for tail in [".a", "[0]", "+1", ".map(x,x)"] {
        let text = format!("data{} == 1", tail.repeat(4_000 / tail.len()));
        assert!(wrong(&text).contains("nested more than 40 deep"), "{tail}");
    }
    let wide = vec!["type == 'x'"; 200].join(" || ");
    assert_eq!(judged(&wide, "{}"), Ok(false));
    let deep = format!("data{} == 1", ".a".repeat(30));
    assert!(judged(&deep, "{}").unwrap_err().contains("no member `a`"));
}

#[test]
fn why_it_cannot_be_told_has_no_value_of_the_payload() {
    let body = r#"{"S":"SECRET","N":1,"L":[1]}"#;
    for (expression, why) in [
        ("data.Missing.X == 1", "there is no member `Missing`; ask with has() first"),
        ("data[data.S] == 1", "there is no such member"),
        ("data.S > 1", "`>` does not take string and int"),
        ("data.S + 1 == 2", "`+` does not take string and int"),
        ("data.L + [1] == []", "`+` does not take list and list"),
        ("data.N / 0 == 1", "it divides by zero"),
        ("data.L[7] == 1", "a list has no such element"),
        ("int(data.S) == 1", "`int` cannot do that with its arguments"),
        ("timestamp(data.S) == time", "`timestamp` cannot do that with its arguments"),
        ("data.N.startsWith('a')", "`startsWith` does not take int and string"),
        ("data.N.matches('a')", "`matches` does not take int"),
        ("data.S", "its result is a value of type string"),
        ("data.S && true", "string"),
        ("data.S.all(x, true)", "a value is of type string, where iterable is wanted"),
        ("data.S - 'a' == 1", "does not take"),
        ("-data.S == 1", "does not take string"),
        ("time > 1", "`>` does not take"),
        ("time + 1 > time", "`+` does not take"),
        ("1 in data.N", "does not take int and int"),
    ] {
        let said = judged(expression, body).unwrap_err();
        assert!(said.contains(why) && !said.contains("SECRET"), "{expression}: {said}");
    }
    assert_eq!(judged("data.N == 1", "{\"N\":"), Err("the payload cannot be read".to_owned()));
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(judged("data == 1", &deep), Err("the payload cannot be read".to_owned()));
}

#[test]
fn a_payload_is_not_read_where_the_expression_does_not_get_to_it() {
    assert_eq!(judged("type == 'x' && data.N == 1", "no JSON"), Ok(false));
    assert_eq!(judged("stream == 'nodes'", "no JSON"), Ok(true));
}

#[test]
fn the_work_for_one_record_is_bounded_whatever_it_loops_over() {
    let list = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    let body = format!(r#"{{"L":{},"S":"{}"}}"#, list(2_000), "x".repeat(1 << 20));
    let much = "it looks at more than 1000000 elements of one record";
    for expression in [
        "data.L.all(a, data.L.all(b, a == b))",
        "data.L.exists(a, data.L.exists(b, a != b))",
        "data.L.map(a, a).all(a, data.L.map(b, b).all(b, a == b))",
        "data.L.all(a, !(2 in data.L))",
        "data.L.all(a, data.L == data.L)",
        "data.L.all(a, data.S.contains('y') || true)",
        "data.L.all(a, data.S.matches('y$') || true)",
    ] {
        assert_eq!(judged(expression, &body), Err(much.to_owned()), "{expression}");
    }
    let own = format!("{0}.all(a, {0}.all(b, {0}.all(c, c == 1)))", list(300));
    assert_eq!(judged(&own, "{}"), Err(much.to_owned()));
    let once = Filter::parse("data.L.all(a, a == 1)").unwrap().judge(&of(&body));
    assert_eq!(once.verdict, Ok(true));
    assert!((2_000..10_000).contains(&once.work), "{}", once.work);
}

#[test]
fn nothing_that_an_expression_puts_together_grows_without_a_bound() {
    let doubled = ".map(x, x + x)".repeat(15);
    let text = judged(&format!("['abc']{doubled}.size() == 1"), "{}").unwrap_err();
    assert_eq!(text, "`+` cannot do that with its arguments");
    let list = judged(&format!("[[1]]{doubled}.size() == 1"), "{}").unwrap_err();
    assert_eq!(list, "`+` does not take list and list");
    let bytes = judged("b'a' + b'b' == b'ab'", "{}").unwrap_err();
    assert_eq!(bytes, "`+` does not take bytes and bytes");
}

use super::*;

/// As much as can be wrong in texts that came from elsewhere.
const HOSTILE: &str = "a\nb\r\u{1b}[31m\u{85}\u{9b}\u{2028}\"\\\u{0}ü";

fn layout(format: Format) -> Layout {
    Layout { format, colours: false, stream: "nodes", host: "box-1".into() }
}

fn entry(message: &str, fields: Vec<(&'static str, Value)>) -> Entry {
    let time = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    Entry { time, ..with(Level::WARN, message, fields) }
}

fn with(level: Level, message: &str, fields: Vec<(&'static str, Value)>) -> Entry {
    Entry { fields, ..Entry::new(level, "nomad_firehose::leader::lease", message.to_owned()) }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn parsed(format: Format, entry: &Entry) -> Json {
    serde_json::from_str(&layout(format).line(entry)).unwrap()
}

#[test]
fn each_layout_has_its_own_names_for_time_level_and_message() {
    let fields = vec![("error", text("no")), ("attempts", Value::Number(3.into()))];
    let entry = entry("it failed", fields);
    let line = |format| layout(format).line(&entry);
    let pid = process::id();
    assert_eq!(
        line(Format::Text),
        "2023-11-14T22:13:20.123456Z  WARN leader::lease: it failed stream=\"nodes\" error=\"no\" \
         attempts=3\n"
    );
    assert_eq!(
        line(Format::Json),
        r#"{"time":"2023-11-14T22:13:20.123456Z","level":"warning","msg":"it failed","module":"leader::lease","stream":"nodes","error":"no","attempts":3}"#
            .to_owned()
            + "\n"
    );
    assert_eq!(
        line(Format::SeatgeekJson),
        r#"{"@timestamp":"2023-11-14T22:13:20.123456Z","@level":"warning","@message":"it failed","module":"leader::lease","stream":"nodes","error":"no","attempts":3}"#
            .to_owned()
            + "\n"
    );
    assert_eq!(
        line(Format::Gelf),
        r#"{"version":"1.1","host":"box-1","short_message":"it failed","timestamp":1700000000.1235,"level":4,"_level_name":"warning","_pid":"#
            .to_owned()
            + &pid.to_string()
            + r#","_module":"leader::lease","_stream":"nodes","_error":"no","_attempts":3}"#
            + "\n"
    );
}

#[test]
fn whatever_a_text_holds_an_entry_is_one_line_without_a_command_for_a_terminal() {
    let fields = vec![("error", Value::Shown(HOSTILE.to_owned())), ("holder", text(HOSTILE))];
    let entry = entry(HOSTILE, fields);
    for (name, format) in FORMATS {
        let line = layout(format).line(&entry);
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_unprintable), "{name}: {line:?}");
        if format != Format::Text {
            let Json::Object(members) = serde_json::from_str(line).unwrap() else {
                panic!("{line}")
            };
            let whole = members.values().filter(|it| *it == HOSTILE).count();
            assert_eq!(whole, 3, "{name} changes what it escapes: {line}");
        }
    }
}

#[test]
fn a_field_never_takes_the_place_of_what_every_line_has() {
    let fields = ["time", "level", "msg", "module", "id", "pid", "odd name", "r#type"];
    let entry = entry("m", fields.into_iter().map(|it| (it, text(it))).collect());
    let json = parsed(Format::Json, &entry);
    assert_eq!((&json["msg"], &json["level"]), (&"m".into(), &"warning".into()));
    for taken in ["time", "level", "msg", "module"] {
        assert_eq!(json[format!("fields.{taken}")], taken);
    }
    assert_eq!(json["id"], "id");
    let gelf = parsed(Format::Gelf, &entry);
    assert_eq!((&gelf["short_message"], &gelf["level"]), (&"m".into(), &4.into()));
    assert!(gelf.get("_id").is_none(), "{gelf}");
    for (name, value) in [
        ("_fields.id", "id"),
        ("_fields.pid", "pid"),
        ("_fields.module", "module"),
        ("_time", "time"),
        ("_odd_name", "odd name"),
        ("_r_type", "r#type"),
    ] {
        assert_eq!(gelf[name], value, "{gelf}");
    }
}

#[test]
fn gelf_has_texts_and_numbers_only() {
    let entry = entry("m", vec![("kept", Value::Bool(true))]);
    assert_eq!(parsed(Format::Gelf, &entry)["_kept"], "true");
    assert_eq!(parsed(Format::Json, &entry)["kept"], true);
}

#[test]
fn an_entry_about_another_stream_says_so_once() {
    let entry = entry("m", vec![("stream", text("jobs"))]);
    let line = layout(Format::Json).line(&entry);
    assert_eq!(line.matches("stream").count(), 1, "{line}");
    assert!(layout(Format::Text).line(&entry).contains("stream=\"jobs\""));
}

#[test]
fn levels_have_the_numbers_of_syslog_and_the_go_tools_names() {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    assert_eq!(levels.map(syslog_level), [3, 4, 6, 7, 7]);
    assert_eq!(levels.map(level_name), ["error", "warning", "info", "debug", "trace"]);
}

#[test]
fn colours_change_nothing_else() {
    let plain = layout(Format::Text);
    let coloured = Layout { colours: true, ..plain.clone() };
    for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
        let entry = with(level, "m", vec![("error", text("e"))]);
        let line = coloured.line(&entry);
        let stripped: String = line
            .split('\u{1b}')
            .map(|it| it.split_once('m').map_or(it, |(_, rest)| rest))
            .collect();
        assert!(line.contains('\u{1b}'));
        // What is before the first code is empty, and has no `m`.
        assert_eq!(stripped, plain.line(&entry));
    }
    let json = Layout { colours: true, ..layout(Format::Json) };
    assert!(!json.line(&entry("m", Vec::new())).contains('\u{1b}'));
}

#[test]
fn a_clock_that_is_wrong_by_ages_does_no_harm() {
    for time in
        [UNIX_EPOCH - Duration::from_secs(1 << 40), UNIX_EPOCH + Duration::from_secs(1 << 50)]
    {
        let entry = Entry { time, ..entry("m", Vec::new()) };
        FORMATS.iter().for_each(|(_, format)| assert!(layout(*format).line(&entry).contains("m")));
    }
}

#[test]
fn a_format_is_one_of_four() {
    for (name, format) in FORMATS {
        let layout = Layout::from_env(&Env::default(), "nodes", Some(name.to_owned())).unwrap();
        assert_eq!((layout.format, layout.colours), (format, false), "{name}");
        assert_eq!(layout.host.is_empty(), format != Format::Gelf);
    }
    let env = Env::from([("LOG_FORMAT", "xml")]);
    let refused = Layout::from_env(&env, "nodes", None).map(|_| ());
    let problems = env.check(refused).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "LOG_FORMAT: `xml` is not one of: text, json, gelf, seatgeek-json"
    );
}

//! The sink `syslog` against a real rsyslogd, which writes down what it has read before it reads
//! on.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::consul::free_port;
use crate::{
    firehose::{Program, wait},
    sinks::contract::{LARGE, Receiver},
};

/// A daemon, and what it has read so far.
pub struct Rsyslogd {
    dir: TempDir,
    port: u16,
    /// What its configuration has besides: before the modules, and after them.
    head: String,
    tail: String,
    process: Option<Child>,
    position: u64,
    rest: Vec<u8>,
    pub messages: Vec<Message>,
    /// What these are.
    records: Vec<(String, Value)>,
}

/// A message, as the daemon understood it.
#[derive(Clone, Debug)]
pub struct Message {
    pub priority: String,
    pub tag: String,
    pub kind: String,
    pub data: String,
    pub text: String,
}

impl Message {
    fn body(&self) -> Value {
        let text = self.text.trim_start();
        serde_json::from_str(text).unwrap_or_else(|err| panic!("{err}: {text}"))
    }

    /// The id among the attributes, or that of the envelope; and the payload.
    fn record(&self) -> (String, Value) {
        let Some(written) = self.data.split(" id=\"").nth(1) else {
            let mut event = self.body();
            let id = event["id"].as_str().unwrap().to_owned();
            return (id, event["data"].take());
        };
        let (mut id, mut chars) = (String::new(), written.chars());
        loop {
            match chars.next().unwrap() {
                '\\' => id.push(chars.next().unwrap()),
                '"' => return (id, self.body()),
                it => id.push(it),
            }
        }
    }
}

impl Rsyslogd {
    /// One with this in its configuration, in which `{dir}` is a directory and `{port}` a port
    /// where it takes messages over TCP.
    pub async fn with(head: &str, tail: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let (head, tail) = (head.to_owned(), tail.to_owned());
        let (process, position, rest) = (None, 0, Vec::new());
        let (messages, records) = (Vec::new(), Vec::new());
        let mut daemon = Self { dir, port, head, tail, process, position, rest, messages, records };
        daemon.resume().await;
        daemon
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    async fn resume(&mut self) {
        let program = std::env::var("RSYSLOG_BIN").unwrap_or_else(|_| {
            panic!(
                "RSYSLOG_BIN is not set: these tests need rsyslogd. Run tools/test, or set it to \
                 what tools/rsyslog prints"
            )
        });
        let template = "%pri%|%app-name%|%msgid%|%structured-data%|%msg%\\n";
        let text = format!(
            "{}\nmain_queue(queue.type=\"direct\")\n\
             template(name=\"all\" type=\"string\" string=\"{template}\")\n{}\n\
             *.* action(type=\"omfile\" file=\"{{dir}}/out\" template=\"all\" \
             asyncWriting=\"off\" flushOnTXEnd=\"on\")\n",
            self.head, self.tail
        );
        let text = text.replace("{dir}", self.dir.path().to_str().unwrap());
        fs::write(self.path("conf"), text.replace("{port}", &self.port.to_string())).unwrap();
        let mut command = Command::new(program);
        command.args(["-n", "-iNONE", "-f", &self.path("conf")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let port = self.port;
        wait("the daemon listens", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let command = format!("kill -s TERM {}", process.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        wait("the daemon ends", async || process.try_wait().unwrap()).await;
    }

    /// Looks at what it has written since the last look.
    fn look(&mut self) {
        let Ok(mut file) = fs::File::open(self.path("out")) else { return };
        file.seek(SeekFrom::Start(self.position)).unwrap();
        self.position += file.read_to_end(&mut self.rest).unwrap() as u64;
        let whole = self.rest.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
        let lines = String::from_utf8(self.rest.drain(..whole).collect()).unwrap();
        for line in lines.lines() {
            // What it says of itself.
            if !line.contains("|rsyslogd|") {
                let [priority, tag, kind, data, text] =
                    line.splitn(5, '|').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
                let message = Message { priority, tag, kind, data, text };
                self.records.push(message.record());
                self.messages.push(message);
            }
        }
    }

    pub async fn took(&mut self, count: usize) -> Vec<(String, Value)> {
        wait(&format!("{count} records come"), async || {
            Some(self.received().await).filter(|it| it.len() >= count)
        })
        .await
    }

    pub fn sink(&self, program: Program) -> Program {
        program
            .set("SINK_TYPE", "syslog")
            .set("SINK_SYSLOG_PROTO", "tcp")
            .set("SINK_SYSLOG_ADDR", format!("127.0.0.1:{}", self.port))
    }
}

/// One that takes large messages over TCP.
const LARGE_ONES: &str = "global(maxMessageSize=\"256k\")\nmodule(load=\"imtcp\")";
const TCP: &str = "input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")";

impl Receiver for Rsyslogd {
    const UNREACHABLE: &'static str = "the syslog receiver at";
    /// It lets everybody in.
    const DENIED: &'static str = "never";

    async fn start() -> Self {
        Self::with(LARGE_ONES, TCP).await
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        self.sink(program)
            .set("SINK_SYSLOG_ADDR", format!("127.0.0.1:{port}"))
            .set("SINK_SYSLOG_MAX_MESSAGE_BYTES", LARGE.to_string())
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        self.look();
        self.records.clone()
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    async fn come_back(&mut self) {
        self.resume().await;
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

// It lets everybody in, and has no way to refuse a message or to fail one. Of a crash a proxy would
// make an orderly end, which is all that tells that everything was read: that is tested without it.
// What a slow receiver does to memory is the same for every sink, and takes long to look at here.
crate::sink_contract!(Rsyslogd:
    records_of_one_key_stay_in_order
    a_record_that_is_too_large_is_kept_and_the_others_go_on
    a_receiver_that_is_down_at_the_start_is_waited_for
    a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
);

//! Redis as tests start it, and what they ask of it.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::consul::free_port;
use crate::firehose::wait;

/// Where records go.
pub const KEY: &str = "events";

/// A server whose data outlives a crash, or a sentinel.
pub struct Server {
    pub dir: TempDir,
    pub port: u16,
    password: Option<&'static str>,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// What a command is answered with; errors are text that begins with `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    List(Vec<Reply>),
    Nothing,
}

impl Server {
    /// Starts one that holds nothing.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(None, arguments).await
    }

    /// The same, which lets nobody in who does not know the password.
    pub async fn start_with(password: Option<&'static str>, arguments: &[&str]) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut all = vec!["--port".to_owned(), port.to_string()];
        all.extend(["--bind", "127.0.0.1", "--save", "", "--dir"].map(str::to_owned));
        all.push(dir.path().to_str().unwrap().to_owned());
        all.extend(["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned));
        all.extend(password.into_iter().flat_map(|it| ["--requirepass".into(), it.to_owned()]));
        all.extend(arguments.iter().map(|it| (*it).to_owned()));
        let mut server = Self { dir, port, password, arguments: all, process: None };
        server.resume().await;
        server
    }

    /// Starts a sentinel that watches a master, and takes another if it is away.
    pub async fn sentinel(name: &str, master: &Server, more: &[&str]) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n{}\n",
            dir.path().display(),
            master.port,
            more.join("\n")
        );
        fs::write(&config, text).unwrap();
        let arguments = vec![config.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let password = more.iter().find_map(|it| it.strip_prefix("requirepass "));
        let password = password.map(|_| "right");
        let mut server = Self { dir, port, password, arguments, process: None };
        server.resume().await;
        server
    }

    /// Starts it again after a crash.
    pub async fn resume(&mut self) {
        let program = std::env::var("REDIS_BIN").unwrap_or_else(|_| {
            panic!(
                "REDIS_BIN is not set: these tests need a Redis. Run tools/test, or set it to what \
                 tools/redis prints"
            )
        });
        let mut command = Command::new(program);
        command.args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.stdout(Stdio::null()).spawn().unwrap());
        wait("Redis answers", async || {
            (self.try_ask(&["PING"]).ok()? == Reply::Text("PONG".into())).then_some(())
        })
        .await;
    }

    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// As the shell's `kill`.
    pub fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    pub fn try_ask(&self, parts: &[&str]) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut commands: Vec<Vec<&str>> = Vec::new();
        commands.extend(self.password.map(|it| vec!["AUTH", it]));
        commands.push(parts.to_vec());
        for parts in &commands {
            write!(stream, "*{}\r\n", parts.len())?;
            parts.iter().try_for_each(|it| write!(stream, "${}\r\n{it}\r\n", it.len()))?;
        }
        let mut reader = BufReader::new(stream);
        commands.iter().map(|_| reply(&mut reader)).last().unwrap()
    }

    /// What it answers to a command.
    pub fn ask(&self, parts: &[&str]) -> Reply {
        self.try_ask(parts).unwrap_or_else(|err| panic!("{parts:?}: {err}"))
    }

    /// Makes sure that it does as it is told.
    pub fn tell(&self, parts: &[&str]) {
        let reply = self.ask(parts);
        assert!(!matches!(&reply, Reply::Text(it) if it.starts_with('-')), "{parts:?}: {reply:?}");
    }

    /// The elements of the list from this one on.
    pub fn elements(&self, first: usize) -> Vec<Value> {
        let Ok(Reply::List(list)) = self.try_ask(&["LRANGE", KEY, &first.to_string(), "-1"]) else {
            return Vec::new();
        };
        list.iter().map(|it| serde_json::from_str(it.text()).unwrap()).collect()
    }

    /// The names that the elements of the list have.
    pub fn names(&self) -> Vec<String> {
        let name = |it: &Value| it["Name"].as_str().unwrap().to_owned();
        self.elements(0).iter().map(name).collect()
    }

    /// Waits until the list has so many elements; their names.
    pub async fn named(&self, count: usize) -> Vec<String> {
        wait(&format!("{count} elements"), async || {
            Some(self.names()).filter(|it| it.len() >= count)
        })
        .await
    }

    /// Waits until something is in what it says of itself.
    pub async fn says(&self, section: &str, text: &str) {
        wait(&format!("{text} in {section}"), async || {
            self.ask(&["INFO", section]).text().contains(text).then_some(())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Reply {
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    pub fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }

    pub fn number(&self) -> i64 {
        if let Self::Number(number) = self { *number } else { panic!("no number: {self:?}") }
    }
}

fn reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let number = || line[1..].parse::<i64>().unwrap();
    Ok(match line.as_bytes()[0] {
        b'+' => Reply::Text(line[1..].to_owned()),
        b'-' => Reply::Text(line.to_owned()),
        b':' => Reply::Number(number()),
        _ if number() < 0 => Reply::Nothing,
        b'*' => Reply::List((0..number()).map(|_| reply(reader)).collect::<io::Result<_>>()?),
        _ => {
            let mut text = vec![0; usize::try_from(number()).unwrap() + 2];
            reader.read_exact(&mut text)?;
            text.truncate(text.len() - 2);
            Reply::Text(String::from_utf8(text).unwrap())
        }
    })
}

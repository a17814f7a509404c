//! A daemon in a child process, on a port of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::fake;

/// The program, without what the environment says.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genie-dataplane"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GENIE_") {
            command.env_remove(name);
        }
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// Standard error of `output`.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder that goes with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("genie-daemon-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon. Killed when dropped.
pub struct Daemon {
    pub address: String,
    child: Child,
    lines: Receiver<String>,
    _folder: Folder,
}

impl Daemon {
    /// One with executors that are no torch: see [`crate::fake`].
    pub fn start(args: &[&str]) -> Self {
        Self::claiming(fake::TORCH, fake::SCHEMAS, args)
    }

    /// The same, with another torch.
    pub fn claiming(torch: &str, schemas: u64, args: &[&str]) -> Self {
        let folder = Folder::new();
        let (libtorch, executor) = fake::install(&folder, torch, schemas);
        let args = [&["--libtorch", &libtorch, "--executor", &executor], args].concat();
        Self::spawn(folder, &args, &[])
    }

    /// One without executors.
    pub fn gateway(args: &[&str]) -> Self {
        Self::gateway_with(args, &[])
    }

    /// The same with variables.
    pub fn gateway_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn(
            Folder::new(),
            &[&["--libtorch", "/nonexistent"], args].concat(),
            variables,
        )
    }

    /// One with executors, whose log goes to `log`.
    pub fn unheard(args: &[&str], log: Stdio) -> Self {
        let folder = Folder::new();
        let (libtorch, executor) = fake::install(&folder, fake::TORCH, fake::SCHEMAS);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let child = program()
            .args(["--libtorch", &libtorch, "--executor", &executor])
            .args(["--listen", &address])
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self {
            address,
            child,
            lines: channel().1,
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&daemon.address).is_err() {
            assert!(Instant::now() < deadline, "it does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    fn spawn(folder: Folder, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = program();
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command
            .args(args)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("daemon: {line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut daemon = Self {
            address: String::new(),
            child,
            lines,
            _folder: folder,
        };
        let ready = daemon.wait_line("ready on ");
        let rest = ready.split("ready on ").nth(1).unwrap();
        daemon.address = rest.split(' ').next().unwrap().to_owned();
        daemon
    }

    /// The next line of the log with `text` in it.
    pub fn wait_line(&self, text: &str) -> String {
        self.lines_until(text).pop().unwrap()
    }

    /// The next lines of the log, up to one with `text` in it.
    pub fn lines_until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no line: {text}"));
            let found = line.contains(text);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    /// `status` of this daemon.
    pub fn status(&self, args: &[&str]) -> Output {
        run(&[&["status", &self.address], args].concat())
    }

    /// A GET over HTTP/1: status line and body.
    pub fn get(&self, path: &str) -> (String, String) {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// A number that `/metrics` shows.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, body) = self.get("/metrics");
        let line = body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {body}"))
            .parse()
            .unwrap()
    }

    /// Waits until a metric has this value.
    pub fn wait_metric(&self, name: &str, value: f64, timeout: Duration) {
        self.wait_metric_where(name, |now| now == value, timeout);
    }

    /// Waits until a metric is as it should be.
    pub fn wait_metric_where(&self, name: &str, right: impl Fn(f64) -> bool, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while !right(self.metric(name)) {
            assert!(
                Instant::now() < deadline,
                "{name} stays {}",
                self.metric(name)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Executors without torch: this test program, started by the daemon as its zygote. They keep
//! uploads and give them back, so that the daemon's part is tested whole and quickly.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genie_gpudev::Sandbox;
use genie_gpudev::message::{Exit, FromZygote, MESSAGE_MAX, Tensors, ToZygote};
use genie_session::fault::Code;
use genie_session::frame::{HEADER_BYTES, Header, Kind, NO_PLACE};
use genie_session::machine::{Call, Failure, Machine, Metas, Source, View};
use genie_session::node::NodeLog;
use genie_shm::{Mapping, RingConsumer, RingProducer, WaitPolicy, seqpacket};

use crate::places::Places;

/// The torch that it claims to be.
pub const TORCH: &str = "2.11.0+fake";
/// Its operators' hash.
pub const SCHEMAS: u64 = 0xfa4e;
/// An operator that ends the executor as a segmentation fault would.
pub const CRASH: &str = "fake::crash";
/// An operator that takes 100 ms.
pub const SLOW: &str = "fake::slow";

/// An operator without end.
pub const ENDLESS: &str = "fake::endless";

/// After it, an executor answers from past the end of its memory.
pub const STRAY: &str = "fake::stray";
/// From past the end of all addresses.
pub const FAR: &str = "fake::far";
/// It gives back a place that it never had.
pub const TWICE: &str = "fake::twice";
/// It says what only the daemon says.
pub const NOISE: &str = "fake::noise";

const SOCKET: &str = "FAKE_ZYGOTE_SOCKET";
const CLAIMS: &str = "FAKE_ZYGOTE_CLAIMS";

/// Makes a libtorch and an executor in `folder`, which claims to be `torch` with operators of this hash;
/// gives their paths.
pub fn install(folder: &crate::process::Folder, torch: &str, schemas: u64) -> (String, String) {
    folder.file("torch/lib/libtorch_cpu.so", "");
    let this = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n{SOCKET}=$3 {CLAIMS}={torch}={schemas} exec {} fake::zygote --exact --ignored --nocapture\n",
        this.display()
    );
    let executor = folder.file("executor", &script);
    std::fs::set_permissions(&executor, std::fs::Permissions::from_mode(0o755)).unwrap();
    (folder.path("torch"), executor)
}

#[test]
#[ignore = "the daemon starts it, as its zygote"]
fn zygote() {
    let Ok(socket) = std::env::var(SOCKET) else {
        return;
    };
    // SAFETY: the daemon handed this descriptor to this process, and nobody else owns it.
    let socket = Arc::new(unsafe { OwnedFd::from_raw_fd(socket.parse().unwrap()) });
    let say = |message: &FromZygote| {
        seqpacket::send(socket.as_fd(), &message.encode(), &[]).unwrap();
    };
    let pid = std::process::id();
    let claims = std::env::var(CLAIMS).unwrap();
    let (torch, schemas) = claims.split_once('=').unwrap();
    say(&FromZygote::Hello {
        pid,
        torch_version: torch.into(),
        schema_hash: schemas.parse().unwrap(),
        sandbox: Sandbox::default(),
    });
    let killed = Arc::new(Mutex::new(HashMap::<u64, Arc<AtomicBool>>::new()));
    let mut bytes = vec![0; MESSAGE_MAX];
    loop {
        let (len, files) = seqpacket::receive(socket.as_fd(), &mut bytes).unwrap();
        if len == 0 {
            std::process::exit(0);
        }
        match ToZygote::decode(&bytes[..len]).unwrap() {
            ToZygote::Fork {
                session, tensors, ..
            } => {
                let kill = Arc::new(AtomicBool::new(false));
                killed.lock().unwrap().insert(session, Arc::clone(&kill));
                say(&FromZygote::Forked { session, pid });
                say(&FromZygote::Ready { session });
                let socket = Arc::clone(&socket);
                std::thread::spawn(move || {
                    let exit = executor(files, tensors, &kill);
                    let message = FromZygote::Exited { session, pid, exit };
                    let _ = seqpacket::send(socket.as_fd(), &message.encode(), &[]);
                });
            }
            ToZygote::Kill { session } => {
                let ended = killed.lock().unwrap().remove(&session);
                if let Some(kill) = ended {
                    kill.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}

struct Keeper {
    places: Places,
    stray: Option<u64>,
    to: RingProducer,
    stored: HashMap<u64, Vec<u8>>,
    kept: HashMap<u64, Vec<u8>>,
    operators: HashMap<u32, String>,
    freed: Vec<u64>,
    crashed: bool,
}

fn executor(files: Vec<OwnedFd>, tensors: Tensors, kill: &AtomicBool) -> Exit {
    let mut files = files.into_iter();
    let mut next = || Arc::new(Mapping::from_peer(files.next().unwrap()).unwrap());
    let mut from = RingConsumer::open(next(), WaitPolicy::SLEEP).unwrap();
    let to = RingProducer::open(next()).unwrap();
    let places = Places::new(tensors, files);
    let (stored, operators, freed) = (HashMap::new(), HashMap::new(), Vec::new());
    let mut keeper = Keeper {
        places,
        stray: None,
        to,
        stored,
        kept: HashMap::new(),
        operators,
        freed,
        crashed: false,
    };
    let mut log = NodeLog::new();
    let mut replies = Vec::new();
    let mut frame = Vec::new();
    while !kill.load(Ordering::SeqCst) {
        match from.pop_timeout(&mut frame, Duration::from_millis(20)) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => return Exit::Status(0),
        }
        let (head, mut payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(head).unwrap();
        let mut source = Source::NoMemory;
        if header.kind == Kind::PlaceSent {
            keeper.places.sent(header.seq);
            continue;
        }
        if header.kind == Kind::PoolGone {
            keeper.places.pool_gone(header.seq);
            continue;
        }
        // What another device sends is given back at once.
        if header.kind == Kind::Arrived {
            let place = payload.first_chunk::<8>().unwrap();
            let place = u64::from_le_bytes(*place);
            if place != NO_PLACE {
                keeper.send(Header::new(Kind::PlaceFree, place, 0), &[]);
            }
            continue;
        }
        if matches!(header.kind, Kind::ArrivedFault | Kind::PeerGone) {
            continue;
        }
        if header.kind == Kind::Bulk {
            let (place, record) = payload.split_first_chunk::<8>().unwrap();
            payload = record;
            let place = u64::from_le_bytes(*place);
            if place != NO_PLACE {
                source = Source::Place(place);
            }
        }
        let header = header.with_payload(payload.len());
        if let Err(error) = log.handle(&header, payload, source, &mut keeper, &mut replies) {
            let fault = genie_session::fault::Fault::new(Code::Protocol, 0, error.to_string());
            keeper.send(Header::new(Kind::Lost, 0, 0), &fault.encode());
            return Exit::Status(2);
        }
        if keeper.crashed {
            return Exit::Signal(11);
        }
        for (header, payload) in replies.drain(..) {
            keeper.send(header, &payload);
        }
        for place in std::mem::take(&mut keeper.freed) {
            keeper.send(Header::new(Kind::PlaceFree, place, 0), &[]);
        }
        let bytes = keeper.stored.values().map(Vec::len).sum::<usize>() as u64;
        keeper.send(
            Header::new(Kind::Usage, keeper.stored.len() as u64, bytes),
            &[],
        );
    }
    Exit::Signal(9)
}

impl Keeper {
    fn send(&mut self, header: Header, payload: &[u8]) {
        let header = header.with_payload(payload.len());
        // A daemon that is gone needs no answer.
        let _ = self.to.push(&[&header.encode(), payload]);
    }
}

impl Machine for Keeper {
    fn define_op(&mut self, op: u32, name: &str) -> Result<(), Failure> {
        self.operators.insert(op, name.to_owned());
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        match self.operators.get(&call.op).map(String::as_str) {
            Some(CRASH) => self.crashed = true,
            Some(SLOW) => std::thread::sleep(Duration::from_millis(100)),
            // Longer than any test.
            Some(ENDLESS) => std::thread::sleep(Duration::from_secs(300)),
            Some(STRAY) => self.stray = Some(1 << 40),
            Some(FAR) => self.stray = Some(u64::MAX - 5),
            Some(TWICE) => self.send(Header::new(Kind::PlaceFree, 12_345, 0), &[]),
            Some(NOISE) => self.send(Header::new(Kind::Bulk, 1, 0), &[]),
            _ => {}
        }
        Ok(())
    }

    fn call_sync(&mut self, _call: &Call<'_>) -> Result<Metas, Failure> {
        Ok(Metas::default())
    }

    fn alloc(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        self.stored.insert(id, vec![0; bytes as usize]);
        Ok(())
    }

    fn resize(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        self.stored.entry(id).or_default().resize(bytes as usize, 0);
        Ok(())
    }

    fn upload(&mut self, id: u64, bytes: u64, source: Source<'_>) -> Result<(), Failure> {
        let mut stored = vec![0; bytes as usize];
        match source {
            Source::Inline(inline) => stored.copy_from_slice(inline),
            Source::Place(place) => {
                self.places.read(place, &mut stored);
                self.freed.push(place);
            }
            Source::NoMemory => {
                return Err(Failure::new(Code::OutOfMemory, "no memory for an upload"));
            }
        }
        self.stored.insert(id, stored);
        Ok(())
    }

    fn fetch(&mut self, fetch: u64, view: &View<'_>) -> Result<(), Failure> {
        let mut bytes = self.stored.get(&view.storage).cloned().unwrap_or_default();
        // Views of bytes from the first one on are all that its clients ask for.
        bytes.truncate(view.sizes.iter().product::<i64>() as usize);
        let place = match self.stray {
            Some(stray) => stray,
            None if bytes.is_empty() => NO_PLACE,
            None => self.places.put(&bytes),
        };
        self.send(
            Header::new(Kind::Data, fetch, bytes.len() as u64),
            &place.to_le_bytes(),
        );
        Ok(())
    }

    fn free(&mut self, id: u64) {
        self.stored.remove(&id);
        self.kept.remove(&id);
    }

    fn bytes(&self, id: u64) -> Option<u64> {
        self.stored.get(&id).map(|bytes| bytes.len() as u64)
    }

    fn keep(&mut self, id: u64, copy: bool) -> Result<(), Failure> {
        let bytes = self.stored.remove(&id).unwrap_or_default();
        if copy {
            self.stored.insert(id, bytes.clone());
        }
        self.kept.insert(id, bytes);
        Ok(())
    }

    fn restore(&mut self, id: u64) {
        if let Some(bytes) = self.kept.remove(&id) {
            self.stored.insert(id, bytes);
        }
    }
}

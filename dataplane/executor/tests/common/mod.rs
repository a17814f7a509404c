//! A client at the other end of an executor's rings: what the daemon and the frontend do, in one
//! thread.

#![allow(dead_code)]

pub mod arguments;
pub mod memory;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use genie_gpudev::device::HostDevice;
use genie_gpudev::zygote::Event;
use genie_gpudev::{Device, DeviceKind, ExecutorHandle, Limits, Zygote, ZygoteInfo};
use genie_session::client::{ClientLog, Draft};
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, NO_PLACE};
use genie_session::machine::Metas;
use genie_session::node::decode_metas;
use genie_session::record;
use genie_session::varint::put_u64;
use genie_shm::RingError;

/// c10 scalar types.
pub const F32: u8 = 6;
pub const F64: u8 = 7;
pub const I64: u8 = 4;
pub const BOOL: u8 = 11;

pub use arguments::{Arg, Out, Tensor, row_major};
use arguments::{Encoded, encode_out};
use memory::Tensors;

const PATIENCE: Duration = Duration::from_secs(30);

/// The zygote under test, shared by a file's tests, and its events.
pub struct Nursery {
    pub zygote: Zygote,
    pub info: ZygoteInfo,
    events: Mutex<Receiver<Event>>,
    seen: Mutex<Vec<Event>>,
}

pub static NURSERY: LazyLock<Nursery> = LazyLock::new(Nursery::start);

pub fn libtorch() -> PathBuf {
    std::env::var_os("GENIE_LIBTORCH").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/torch"),
        PathBuf::from,
    )
}

impl Nursery {
    pub fn start() -> Self {
        let (sender, events) = channel();
        let (zygote, info) = Zygote::start(
            Path::new(env!("CARGO_BIN_EXE_genie-executor")),
            &libtorch(),
            move |event| drop(sender.send(event)),
        )
        .unwrap();
        Self {
            zygote,
            info,
            events: Mutex::new(events),
            seen: Mutex::default(),
        }
    }

    pub fn session(&self, session: u64, limits: Limits) -> Client {
        Client::new(
            self.zygote
                .fork(session, DeviceKind::Host(0), limits)
                .unwrap(),
        )
    }

    /// One whose tensors are in pools of the host device, as they are on an accelerator.
    pub fn session_with_pools(&self, session: u64, limits: Limits) -> Client {
        let device: Arc<dyn Device> = Arc::new(HostDevice::new(0));
        let executor = self.zygote.fork_with_pools(session, &device, limits);
        Client::new(executor.unwrap())
    }

    /// How the executor of `session` ended.
    pub fn exit_of(&self, session: u64) -> genie_gpudev::Exit {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = lock(&self.seen);
            let event = lock(&self.events).recv_timeout(Duration::from_millis(20));
            if let Ok(event) = event {
                seen.push(event);
            }
            for event in seen.iter() {
                if let Event::Exited {
                    session: of, exit, ..
                } = event
                    && *of == session
                {
                    return *exit;
                }
            }
            assert!(
                Instant::now() < deadline,
                "the executor of session {session} lives on"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A session.
pub struct Client {
    pub executor: ExecutorHandle<Tensors>,
    pub log: ClientLog,
    ops: HashMap<String, u32>,
    next_fetch: u64,
    frame: Vec<u8>,
    /// Faults that came by themselves.
    pub faults: Vec<Fault>,
    /// Inbound places that were given back.
    pub places_free: u64,
    /// Frames of answers, each with bytes of its own.
    pub data_frames: u64,
    /// Pools that went with them.
    pub pools_gone: u64,
    /// The last report of memory use: bytes, tensors.
    pub usage: (u64, u64),
    copy_data: bool,
    /// Bytes that fetches under way still expect, by fetch.
    expected: HashMap<u64, usize>,
}

impl Client {
    pub fn new(executor: ExecutorHandle<impl Into<Tensors>>) -> Self {
        let executor = ExecutorHandle {
            pid: executor.pid,
            to_executor: executor.to_executor,
            from_executor: executor.from_executor,
            memory: executor.memory.into(),
            life: executor.life,
        };
        Self {
            executor,
            log: ClientLog::new(),
            ops: HashMap::new(),
            next_fetch: 1,
            frame: Vec::new(),
            faults: Vec::new(),
            places_free: 0,
            data_frames: 0,
            pools_gone: 0,
            usage: (0, 0),
            copy_data: true,
            expected: HashMap::new(),
        }
    }

    fn op(&mut self, name: &str) -> u32 {
        let next = self.ops.len() as u32 + 1;
        let op = *self.ops.entry(name.to_owned()).or_insert(next);
        self.log.define_op(op, name);
        op
    }

    pub fn call(&mut self, name: &str, args: &[Arg], outs: &[Out]) -> Vec<Tensor> {
        let op = self.op(name);
        let mut encoded = Encoded::default();
        args.iter().for_each(|arg| encoded.push(arg));
        let (mut tail, mut numbers, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        encode_out(outs, &mut tail, &mut numbers, &mut fresh);
        let draft = Draft {
            op,
            skeleton: &encoded.skeleton,
            storages: &encoded.storages,
            params: &encoded.params,
            data: &encoded.data,
            tail: &tail,
            tail_numbers: &numbers,
            fresh: fresh.len() as u64,
            ..Draft::new(record::Kind::Op)
        };
        let appended = self.log.append(&draft).unwrap();
        for (tensor, id) in fresh.iter_mut().zip(appended.first_fresh..) {
            tensor.storage = id;
        }
        if appended.full {
            self.flush();
        }
        fresh
    }

    pub fn call_sync(&mut self, name: &str, args: &[Arg]) -> Result<(Metas, u64), Fault> {
        let op = self.op(name);
        let mut encoded = Encoded::default();
        args.iter().for_each(|arg| encoded.push(arg));
        let reserved = 16;
        let mut tail = Vec::new();
        put_u64(&mut tail, reserved);
        let draft = Draft {
            op,
            skeleton: &encoded.skeleton,
            storages: &encoded.storages,
            params: &encoded.params,
            data: &encoded.data,
            tail: &tail,
            fresh: reserved,
            ..Draft::new(record::Kind::CallSync)
        };
        let appended = self.log.append(&draft).unwrap();
        self.flush();
        loop {
            match self.receive().expect("the executor died") {
                Reply::Metas(seq, metas) if seq == appended.seq => {
                    return Ok((metas, appended.first_fresh));
                }
                Reply::FetchFault(seq, fault) if seq == appended.seq => return Err(fault),
                _ => {}
            }
        }
    }

    pub fn alloc(&mut self, bytes: u64) -> u64 {
        let draft = Draft {
            tail_numbers: &[bytes as i64],
            fresh: 1,
            ..Draft::new(record::Kind::Alloc)
        };
        self.log.append(&draft).unwrap().first_fresh
    }

    /// A tensor of these bytes, sent inside a record.
    pub fn inline(&mut self, dtype: u8, sizes: &[i64], bytes: &[u8]) -> Tensor {
        let storage = self.alloc(bytes.len() as u64);
        let draft = Draft {
            storages: &[storage],
            tail: &[0],
            tail_numbers: &[bytes.len() as i64],
            blob: Some(bytes),
            ..Draft::new(record::Kind::Upload)
        };
        self.log.append(&draft).unwrap();
        Tensor {
            storage,
            dtype,
            offset: 0,
            sizes: sizes.to_vec(),
            strides: row_major(sizes),
        }
    }

    /// A tensor of these bytes, through the inbound arena.
    pub fn upload(&mut self, dtype: u8, sizes: &[i64], bytes: &[u8]) -> Tensor {
        let storage = self.alloc(bytes.len() as u64);
        let (before, message) = self.log.append_bulk(storage, bytes.len() as u64).unwrap();
        if let Some(before) = before {
            self.push(before.header, &before.payload);
        }
        let place = self.executor.memory.put(bytes).unwrap_or(NO_PLACE);
        let payload = [&place.to_le_bytes()[..], &message.payload].concat();
        self.push(message.header.with_payload(payload.len()), &payload);
        Tensor {
            storage,
            dtype,
            offset: 0,
            sizes: sizes.to_vec(),
            strides: row_major(sizes),
        }
    }

    pub fn floats(&mut self, sizes: &[i64], values: &[f32]) -> Tensor {
        assert_eq!(sizes.iter().product::<i64>(), values.len() as i64);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.inline(F32, sizes, &bytes)
    }

    pub fn ints(&mut self, sizes: &[i64], values: &[i64]) -> Tensor {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.inline(I64, sizes, &bytes)
    }

    pub fn free(&mut self, tensor: &Tensor) {
        self.log.free(tensor.storage);
    }

    pub fn fetch(&mut self, tensor: &Tensor) -> Result<Vec<u8>, Fault> {
        let fetch = self.fetch_later(tensor);
        self.flush();
        self.wait_fetch(fetch)
    }

    /// Waits for the bytes to be in the arena, and leaves them there.
    pub fn fetch_without_copy(&mut self, tensor: &Tensor) {
        let fetch = self.fetch_later(tensor);
        self.flush();
        self.copy_data = false;
        self.wait_fetch(fetch).unwrap();
        self.copy_data = true;
    }

    /// Records a fetch without sending it.
    pub fn fetch_later(&mut self, tensor: &Tensor) -> u64 {
        let mut encoded = Encoded::default();
        encoded.tensor(tensor, 0);
        let fetch = self.next_fetch;
        self.next_fetch += 1;
        let element = genie_session::skeleton::element_bytes(tensor.dtype).unwrap();
        // Some tests ask for more than there can be.
        let elements = tensor.sizes.iter();
        let elements = elements.fold(1_i64, |product, &size| product.saturating_mul(size));
        self.expected
            .insert(fetch, (elements as usize).saturating_mul(element as usize));
        let draft = Draft {
            skeleton: &encoded.skeleton,
            storages: &encoded.storages,
            params: &encoded.params,
            tail_numbers: &[fetch as i64],
            ..Draft::new(record::Kind::Fetch)
        };
        self.log.append(&draft).unwrap();
        fetch
    }

    pub fn wait_fetch(&mut self, fetch: u64) -> Result<Vec<u8>, Fault> {
        let mut all = Vec::new();
        loop {
            match self.receive().expect("the executor died") {
                Reply::Data(of, bytes, part) if of == fetch => {
                    all.extend(bytes);
                    let left = self.expected.get_mut(&fetch).expect("a fetch under way");
                    *left = left.checked_sub(part).expect("no more than was asked for");
                    if *left == 0 {
                        self.expected.remove(&fetch);
                        return Ok(all);
                    }
                }
                Reply::FetchFault(of, fault) if of == fetch => return Err(fault),
                _ => {}
            }
        }
    }

    pub fn fetch_floats(&mut self, tensor: &Tensor) -> Vec<f32> {
        let bytes = self.fetch(tensor).unwrap();
        bytes
            .chunks_exact(4)
            .map(|raw| f32::from_le_bytes(raw.try_into().unwrap()))
            .collect()
    }

    pub fn fault_of(&mut self, tensor: &Tensor) -> (Code, String) {
        let fault = self.fetch(tensor).expect_err("an error was expected");
        (fault.code, fault.message)
    }

    /// Waits until everything before has run.
    pub fn barrier(&mut self) -> Result<(), RingError> {
        let id = self.next_fetch;
        self.next_fetch += 1;
        let draft = Draft {
            tail_numbers: &[id as i64],
            ..Draft::new(record::Kind::Barrier)
        };
        self.log.append(&draft).unwrap();
        self.flush();
        loop {
            match self.receive()? {
                // Or something failed before it, which is what a look is answered with.
                Reply::Synced(of) | Reply::FetchFault(of, _) if of == id => return Ok(()),
                _ => {}
            }
        }
    }

    pub fn flush(&mut self) {
        if let Some(message) = self.log.flush() {
            self.push(message.header, &message.payload);
            self.log.recycle(message.payload);
        }
    }

    pub fn push(&mut self, header: Header, payload: &[u8]) {
        // A dead executor shows when its answer is missed.
        let _ = self.executor.to_executor.push(&[&header.encode(), payload]);
    }

    /// The next frame from the executor.
    pub fn receive(&mut self) -> Result<Reply, RingError> {
        let came = self
            .executor
            .from_executor
            .pop_timeout(&mut self.frame, PATIENCE)?;
        assert!(came, "the executor is silent");
        let (head, payload) = self.frame.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(head).unwrap();
        assert_eq!(header.payload_len as usize, payload.len());
        Ok(match header.kind {
            Kind::Ack => {
                self.log.acknowledged(header.seq, header.aux).unwrap();
                Reply::Other
            }
            Kind::Data => {
                self.data_frames += 1;
                let place = u64::from_le_bytes(payload.try_into().unwrap());
                let wanted = if self.copy_data {
                    header.aux as usize
                } else {
                    0
                };
                let mut bytes = vec![0; wanted];
                if place == NO_PLACE {
                    assert_eq!(header.aux, 0);
                } else {
                    self.executor.memory.read(place, &mut bytes);
                    self.push(Header::new(Kind::PlaceSent, place, 0), &[]);
                }
                Reply::Data(header.seq, bytes, header.aux as usize)
            }
            Kind::Fault => {
                self.faults.push(Fault::decode(payload).unwrap());
                Reply::Other
            }
            Kind::FetchFault => Reply::FetchFault(header.seq, Fault::decode(payload).unwrap()),
            Kind::Metas => Reply::Metas(header.seq, decode_metas(payload).unwrap()),
            Kind::Synced => Reply::Synced(header.seq),
            Kind::Lost => Reply::Lost(Fault::decode(payload).unwrap()),
            Kind::PlaceFree => {
                if let Some(gone) = self.executor.memory.free(header.seq) {
                    self.push(Header::new(Kind::PoolGone, gone, 0), &[]);
                    self.pools_gone += 1;
                }
                self.places_free += 1;
                Reply::Other
            }
            Kind::Usage => {
                self.usage = (header.aux, header.seq);
                Reply::Other
            }
            _ => Reply::Other,
        })
    }
}

/// A frame from the executor.
#[derive(Debug)]
pub enum Reply {
    /// Of which fetch, the bytes if they are wanted, how many they are.
    Data(u64, Vec<u8>, usize),
    FetchFault(u64, Fault),
    Metas(u64, Metas),
    Synced(u64),
    Lost(Fault),
    Other,
}

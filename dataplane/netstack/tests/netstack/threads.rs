//! Loops in threads of their own that sleep, applications in a runtime: nothing is missed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use genie_netstack::{Host, PipeStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sim::{PORT, at, config, pattern};

/// What wakes a loop: frames, or an application.
#[derive(Default)]
struct Bell {
    frames: Mutex<(VecDeque<Vec<u8>>, bool)>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self, frame: Option<Vec<u8>>) {
        let mut state = self.frames.lock().unwrap();
        state.1 = true;
        state.0.extend(frame);
        self.rung.notify_one();
    }

    /// Waits until it is rung, or `timeout`; a missed one would wait for long.
    fn wait(&self, timeout: Option<Duration>) -> VecDeque<Vec<u8>> {
        let most = timeout.unwrap_or(Duration::from_secs(20));
        let state = self.frames.lock().unwrap();
        let (mut state, _) = self
            .rung
            .wait_timeout_while(state, most, |(_, rung)| !*rung)
            .unwrap();
        state.1 = false;
        std::mem::take(&mut state.0)
    }
}

/// Runs a host until `stop`.
fn run(
    mut host: Host,
    own: &Bell,
    other: &Bell,
    stop: &AtomicBool,
    mut act: impl FnMut(&mut Host),
) {
    let start = Instant::now();
    let mut out = vec![0; 2000];
    while !stop.load(Ordering::SeqCst) {
        act(&mut host);
        while let Some(len) = host.poll_transmit(start.elapsed(), &mut out) {
            other.ring(Some(out[..len].to_vec()));
        }
        let now = start.elapsed();
        let timeout = host.timeout(now).map(|at| at.saturating_sub(now));
        for frame in own.wait(timeout) {
            host.handle(&frame, start.elapsed());
        }
    }
}

#[test]
fn applications_and_loops_in_threads() {
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let stop = Arc::new(AtomicBool::new(false));
    let (streams, mut accepted) = tokio::sync::mpsc::unbounded_channel::<PipeStream>();
    let (client_sent, client_there) = tokio::sync::oneshot::channel::<PipeStream>();
    let mut client_sent = Some(client_sent);
    let mut threads = Vec::new();
    for index in 0..2 {
        let (own, other) = (Arc::clone(&bells[index]), Arc::clone(&bells[1 - index]));
        let (stop, streams) = (Arc::clone(&stop), streams.clone());
        let mut client_sent = client_sent.take_if(|_| index == 0);
        threads.push(std::thread::spawn(move || {
            let bell = Arc::clone(&own);
            let mut host = Host::new(config(index), Arc::new(move || bell.ring(None))).unwrap();
            if index == 1 {
                host.listen(PORT, 4).unwrap();
            }
            run(host, &own, &other, &stop, |host| {
                if let Some(sender) = client_sent.take() {
                    sender.send(host.connect(at(1)).unwrap()).unwrap();
                }
                if let Some((stream, ..)) = host.accept() {
                    streams.send(stream).unwrap();
                }
            });
        }));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let all = async {
        let client = client_there.await.unwrap();
        let echo = tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(accepted.recv().await.unwrap());
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let (mut reader, mut writer) = tokio::io::split(client);
        let writing = tokio::spawn(async move {
            // Small ones that wait for their echo, then many at once.
            for part in pattern(4 << 20, 8).chunks(37_001) {
                writer.write_all(part).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap();
        echo.await.unwrap();
        got
    };
    let got = runtime.block_on(async {
        // Against a test that hangs; 4 MiB take milliseconds.
        tokio::time::timeout(Duration::from_secs(60), all).await
    });
    stop.store(true, Ordering::SeqCst);
    bells.iter().for_each(|bell| bell.ring(None));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!(got.expect("stuck") == pattern(4 << 20, 8));
}

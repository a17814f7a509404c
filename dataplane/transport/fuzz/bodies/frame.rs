//! One end under any frames: raw bytes, and authentic ones with any control and data.

use std::time::Duration;

use genie_transport::{DeviceData, Event, HEADER_BYTES, Time, Unverified};

use crate::script::Script;
use crate::sim::device::Gather;
use crate::sim::forge::forge;
use crate::sim::victim::victim;

pub fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let (mut connection, mut memory, _) = victim();
    let (mut now, mut out) = (Time(1), vec![0; 9000]);
    let mut waiting: Vec<(Unverified, Vec<u8>)> = Vec::new();
    let mut ended = false;
    while !script.is_over() {
        let op = script.byte();
        match op % 4 {
            0 => {
                let len = usize::from(script.word() % 512);
                let mut frame = script.bytes(len).to_vec();
                let _counted = connection.handle(&mut frame, now, &mut memory);
            }
            1 | 2 => {
                let number = u64::from(script.byte());
                let control_len = usize::from(script.byte());
                let control = script.bytes(control_len);
                let data = vec![op; usize::from(script.word() % 9000)];
                let mut frame = forge(number, control, &data);
                if op % 4 == 1 {
                    let _counted = connection.handle(&mut frame, now, &mut memory);
                } else {
                    let tags = if data.is_empty() { 4 } else { 8 };
                    let (head, data) = frame.split_at_mut(HEADER_BYTES + control.len() + tags);
                    let handle = number;
                    let len = data.len();
                    let buffer = DeviceData { handle, len };
                    let taken = connection.handle_split(head, buffer, now, &mut memory);
                    if let Ok(Some(unverified)) = taken {
                        waiting.push((unverified, data.to_vec()));
                    }
                }
            }
            _ => {
                for _ in 0..script.byte() % 8 {
                    let Some((unverified, data)) = waiting.pop() else {
                        break;
                    };
                    let fits = script.byte() % 4 > 0;
                    let data = fits.then_some(data.as_slice());
                    memory.gather(unverified.token, data);
                    assert!(connection.verified(unverified.token, fits, now));
                }
                let released = script.word();
                connection.release(u64::from(released));
                now = now.after(Duration::from_micros(u64::from(script.word())));
                let mut frames = 0;
                while connection
                    .poll_transmit(now, &mut memory, &mut out)
                    .is_some()
                {
                    frames += 1;
                    assert!(frames < 5000, "it sends for ever");
                }
            }
        }
        while let Some(event) = connection.poll_event() {
            assert!(!ended, "the end comes last");
            ended = matches!(event, Event::Ended(_));
            if let Event::Received(grant) | Event::ReceiveFailed(grant, _) = event {
                memory.ended[grant.region.0 as usize] = true;
            }
        }
        while connection.read_message(<[u8]>::len).is_some() {}
    }
    let written = memory.writes.iter().flatten().filter(|&&count| count == 1);
    let (written, placed) = (written.count() as u64, connection.counters().bytes_placed);
    // What was gathered after its grant had ended was written, and is not counted.
    assert!(placed <= written);
}

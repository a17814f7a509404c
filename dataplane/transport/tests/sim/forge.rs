//! Frames of a checksummed link, made by hand.

use genie_transport::{Epoch, HEADER_BYTES, Header, Role, crc32c};

use super::ID;

/// A frame as an authentic peer of a checksummed link would make it, with any control and data.
pub fn forge(number: u64, control: &[u8], data: &[u8]) -> Vec<u8> {
    let header = Header {
        connection: ID,
        epoch: Epoch(1),
        packet_number: number,
        sealed: false,
        sender: Role::Initiator,
        control_len: control.len() as u16,
        data_len: data.len() as u16,
    };
    let mut head = [0; HEADER_BYTES];
    header.encode(&mut head);
    let mut frame = head.to_vec();
    frame.extend(control);
    if !data.is_empty() {
        frame.extend(crc32c(0, data).to_be_bytes());
    }
    frame.extend(crc32c(0, &frame).to_be_bytes());
    frame.extend(data);
    frame
}

pub fn data_block(region: u64, generation: u64, offset: u64, len: u16) -> Vec<u8> {
    let mut block = vec![2];
    for field in [region, generation, offset] {
        block.extend(field.to_be_bytes());
    }
    block.extend(len.to_be_bytes());
    block
}

pub fn reset_block(region: u64, generation: u64, by: u8) -> Vec<u8> {
    let mut block = vec![6];
    block.extend(region.to_be_bytes());
    block.extend(generation.to_be_bytes());
    block.push(by);
    block
}

pub fn message_block(sequence: u64, len: u16) -> Vec<u8> {
    let mut block = vec![3];
    block.extend(sequence.to_be_bytes());
    block.extend(len.to_be_bytes());
    block.resize(block.len() + usize::from(len), 5);
    block
}

pub fn ack_block(largest: u64, credit: u64, gap: u32, run: u32) -> Vec<u8> {
    let mut block = vec![1];
    block.extend(largest.to_be_bytes());
    block.extend(u32::MAX.to_be_bytes());
    block.extend(credit.to_be_bytes());
    block.extend(u64::MAX.to_be_bytes());
    block.push(2);
    for field in [0, run, gap, run] {
        block.extend(field.to_be_bytes());
    }
    block
}

pub fn damaged_block(number: u64) -> Vec<u8> {
    let mut block = vec![8];
    block.extend(number.to_be_bytes());
    block
}

//! How the log lies in its file: records, each with its length and a checksum.
//!
//! A crash in the middle of a write leaves a torn record at the end, which nobody was told of: it is cut off. Anything else that cannot be read was
//! written once and counted on, and to go on without it would be to forget a vote or a promise: it is refused. Pure.

use std::io;
use std::ops::Range;

/// Length and checksum, four bytes each, little endian.
const HEADER: usize = 8;

/// Far above the largest snapshot.
pub const LONGEST: usize = 256 << 20;

/// What disks write at once. A torn write leaves whole ones out, which a file that has grown shows as zeros.
const SECTOR: usize = 512;

/// Something between the records is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at offset {offset} was changed since it was written")]
pub struct Damaged {
    pub offset: usize,
}

pub fn encode(payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length as usize <= LONGEST);
    let length =
        length.ok_or_else(|| io::Error::other(format!("{} bytes are too long for a record", payload.len())))?;
    let mut record = Vec::with_capacity(HEADER + payload.len());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    record.extend_from_slice(payload);
    Ok(record)
}

/// Where the payloads are, and where the last whole record ends.
pub fn decode(bytes: &[u8]) -> Result<(Vec<Range<usize>>, usize), Damaged> {
    let mut payloads = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match record(&bytes[at..]) {
            Some(length) => {
                payloads.push(at + HEADER..at + HEADER + length);
                at += HEADER + length;
            }
            None if is_torn(&bytes[at..]) => break,
            None => return Err(Damaged { offset: at }),
        }
    }
    Ok((payloads, at))
}

/// The length of the payload of the record at the start.
fn record(bytes: &[u8]) -> Option<usize> {
    let (length, checksum) = header(bytes)?;
    let payload = bytes.get(HEADER..HEADER + length)?;
    (length > 0 && crc32fast::hash(payload) == checksum).then_some(length)
}

fn header(bytes: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, _) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST)?;
    Some((length, u32::from_le_bytes(*checksum)))
}

/// Nothing that is whole comes after it, and it is cut off or has holes.
fn is_torn(rest: &[u8]) -> bool {
    // Payloads are JSON objects: few places look like the start of a record.
    let whole = |at: usize| rest.get(at + HEADER) == Some(&b'{') && record(&rest[at..]).is_some();
    if (1..rest.len()).any(whole) {
        return false;
    }
    let length = header(rest).map_or(0, |(length, _)| length);
    let cut_off = rest.len() < HEADER + length.max(1);
    // Where sectors begin in the file is not known here; a hole of a sector has half a sector of zeros in any alignment.
    cut_off || rest.chunks_exact(SECTOR / 2).any(is_zero) || is_zero(rest)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(payloads: &[&str]) -> Vec<u8> {
        payloads.iter().flat_map(|payload| encode(payload.as_bytes()).expect("short")).collect()
    }

    fn texts(bytes: &[u8]) -> Result<Vec<String>, Damaged> {
        let (payloads, _) = decode(bytes)?;
        Ok(payloads.into_iter().map(|place| String::from_utf8_lossy(&bytes[place]).into_owned()).collect())
    }

    #[test]
    fn what_was_written_is_read() {
        let payloads = ["{}", "{\"a\":1}", "{\"b\":2}"];
        let bytes = file(&payloads);
        assert_eq!(texts(&bytes).expect("whole"), payloads);
        assert_eq!(decode(&bytes).expect("whole").1, bytes.len());
        assert_eq!(texts(&[]).expect("empty"), [""; 0]);
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_was_torn() {
        let bytes = file(&["{\"a\":1}", "{\"b\":2}"]);
        let first = file(&["{\"a\":1}"]).len();
        for cut in first..bytes.len() {
            let (payloads, end) = decode(&bytes[..cut]).expect("torn");
            assert_eq!((payloads.len(), end), (1, first), "cut at {cut}");
            // The file had grown already, and what was to come is zeros.
            let mut grown = bytes[..cut].to_vec();
            grown.resize(cut + 2 * SECTOR, 0);
            assert_eq!(decode(&grown).expect("torn").1, first, "cut at {cut} and grown");
        }
    }

    #[test]
    fn a_hole_in_the_middle_is_refused_with_its_place() {
        let bytes = file(&["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
        let second = file(&["{\"a\":1}"]).len();
        for at in second..2 * second {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(texts(&damaged), Err(Damaged { offset: second }), "bit {bit} at {at}");
            }
        }
    }

    #[test]
    fn a_last_record_that_is_whole_and_wrong_is_refused() {
        let mut bytes = file(&["{\"a\":1}", "{\"b\":2}"]);
        let at = bytes.len() - 2;
        bytes[at] ^= 1;
        assert!(texts(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok((payloads, end)) = decode(&bytes) {
                prop_assert!(end <= bytes.len() && payloads.iter().all(|place| place.end <= end));
            }
        }
    }
}

//! The value of `pgherd/timelines`: the newest timeline that was reserved for a promotion. Patroni reads no key of this name, and its
//! `remove` deletes it with all others of the cluster.

use pgherd_ha::{Epoch, Reservation, Timeline};
use serde_json::{Map, Value, json};

use super::json::compact;
use super::member::number;

/// `{"timeline":4,"epoch":4294967318,"leader":"pg-2"}`
pub fn encode_reservation(reservation: &Reservation) -> Vec<u8> {
    compact(
        &json!({ "timeline": reservation.timeline, "epoch": reservation.epoch, "leader": reservation.leader.as_str() }),
    )
}

/// What cannot be read counts as no timeline: the key is there, and has to be written over its version.
pub fn decode_reservation(bytes: &[u8]) -> Reservation {
    let object: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
    let field = |name: &str| object.get(name).and_then(number);
    let Some(timeline) = field("timeline").and_then(|timeline| u32::try_from(timeline).ok()) else {
        return Reservation::default();
    };
    let leader = object.get("leader").and_then(Value::as_str).unwrap_or_default().to_owned();
    Reservation { timeline: Timeline(timeline), epoch: Epoch(field("epoch").unwrap_or(0)), leader }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_written_and_read() {
        let reservation = Reservation { timeline: Timeline(4), epoch: Epoch(4_294_967_318), leader: "pg-2".into() };
        let bytes = encode_reservation(&reservation);
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"timeline":4,"epoch":4294967318,"leader":"pg-2"}"#);
        assert_eq!(decode_reservation(&bytes), reservation);
        let bare = Reservation { timeline: Timeline(7), ..Reservation::default() };
        assert_eq!(decode_reservation(br#"{"timeline":"7","later":1}"#), bare);
        for nonsense in ["", "7", "[]", "{}", r#"{"timeline":-1}"#, r#"{"timeline":4294967296}"#, r#"{"epoch":9}"#] {
            assert_eq!(decode_reservation(nonsense.as_bytes()), Reservation::default(), "{nonsense}");
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_is_survived(text in "\\PC*", timeline: i64) {
            decode_reservation(text.as_bytes());
            decode_reservation(format!(r#"{{"timeline":{timeline},"epoch":{text},"leader":{text}}}"#).as_bytes());
        }
    }
}

//! The words of the errors. Other tests assert variants and predicates.

use multiproc_message::{EncodeError, check_type, decode};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Untagged {
    _Number(#[allow(dead_code)] u8),
}

#[test]
fn encode_error_names_type_and_reason() {
    let error = EncodeError::new::<u8>("out of ink");
    assert_eq!(error.to_string(), "a value of type `u8` cannot be sent: out of ink");
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!((error.type_name(), error.reason()), ("u8", "out of ink"));
}

#[test]
fn decode_error_names_type_and_reason() {
    let text = |bytes: &[u8]| {
        let error = decode::<u32>(bytes, Vec::new()).unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
        error.to_string()
    };
    assert_eq!(
        text(&[1, 2]),
        "cannot decode the message as `u32`: it ends 4 bytes too early; do both sides use the same type and \
         version?"
    );
    assert_eq!(
        text(&[1, 2, 3, 4, 5]),
        "cannot decode the message as `u32`: 1 bytes are left over; do both sides use the same type and \
         version?"
    );
}

#[test]
fn refused_type_is_told_what_to_do() {
    assert_eq!(
        check_type::<Untagged>().unwrap_err().reason(),
        "messages do not describe themselves, so a type that asks what comes next (a JSON value; an \
         enum with serde's `untagged`, `tag` or `content`; a struct with `flatten`) cannot be \
         received: wrap it in `Json` (feature `json`) or remove these attributes"
    );
}

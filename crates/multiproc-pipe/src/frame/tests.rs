use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Header { length: body.len(), descriptors: 0 }.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn next_frame_is_taken_when_complete() {
    let bytes = [frame(b"abc"), frame(b""), b"\x01".to_vec()].concat();
    for cut in 0..HEADER + 3 {
        let mut part = &bytes[..cut];
        assert_eq!(next_frame(&mut part, 3), Ok(None), "{cut}");
        assert_eq!(part.len(), cut);
    }
    let mut rest = &bytes[..];
    assert_eq!(next_frame(&mut rest, 3), Ok(Some(&b"abc"[..])));
    assert_eq!(next_frame(&mut rest, 3), Ok(Some(&b""[..])));
    assert_eq!(next_frame(&mut rest, 3), Ok(None));
    assert_eq!(rest, b"\x01");
}

#[test]
fn next_frame_refuses_length_and_descriptors_at_the_header() {
    let header = |length, descriptors| Header { length, descriptors }.to_bytes();
    assert_eq!(next_frame(&mut &header(100, 0)[..], 100), Ok(None));
    for header in [header(101, 0), header(usize::MAX, 0), header(1, 1), [0xff; HEADER]] {
        assert!(next_frame(&mut &header[..], 100).is_err());
    }
}

/// Feeds at most `count` bytes and returns how many were consumed.
fn feed(assembler: &mut Assembler, bytes: &[u8]) -> usize {
    let (count, ahead) = match assembler.space().unwrap() {
        Space::Ahead(space, _) => {
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            (count, true)
        }
        Space::Body(body) => {
            let count = (body.capacity() - body.len()).min(bytes.len());
            body.extend_from_slice(&bytes[..count]);
            (count, false)
        }
    };
    if ahead {
        assembler.filled(count);
    }
    count
}

/// Returns all frames of the stream, fed in pieces of at most `piece` bytes.
fn frames_in_pieces(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut assembler = Assembler::new();
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let count = feed(&mut assembler, &rest[..piece.min(rest.len())]);
        rest = &rest[count..];
        while let Some(frame) = assembler.next().unwrap() {
            frames.push(frame.body.into_owned());
        }
    }
    assert!(!assembler.is_inside_frame());
    frames
}

#[test]
fn frames_survive_any_cut() {
    let bodies =
        [&b""[..], b"x", &[7; 100], &vec![9; READ_AHEAD - HEADER], &vec![1; READ_AHEAD], b"z"];
    let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
    for piece in [1, 11, 12, 13, 4095, READ_AHEAD, READ_AHEAD + 1, stream.len()] {
        assert_eq!(frames_in_pieces(&stream, piece), bodies, "pieces of {piece}");
    }
}

#[test]
fn a_body_larger_than_the_growth_step_arrives() {
    let body: Vec<u8> = (0..3 * GROWTH + 5).map(|i| i.to_le_bytes()[0]).collect();
    assert_eq!(frames_in_pieces(&frame(&body), 1 << 20), [body]);
}

#[test]
fn a_forged_length_takes_no_memory() {
    let mut assembler = Assembler::new();
    feed(&mut assembler, &Header { length: 1 << 60, descriptors: 0 }.to_bytes());
    assert!(assembler.next().unwrap().is_none());
    let Space::Body(body) = assembler.space().unwrap() else { panic!("a large frame") };
    assert!(body.capacity() <= GROWTH);
}

#[test]
fn impossible_headers_are_refused() {
    for (header, what) in [
        (Header { length: usize::MAX, descriptors: 0 }, "length"),
        (Header { length: 0, descriptors: MAX_DESCRIPTORS + 1 }, "descriptors"),
        (Header { length: 0, descriptors: 1 }, "announces 1 descriptors, 0 came"),
    ] {
        let mut assembler = Assembler::new();
        feed(&mut assembler, &header.to_bytes());
        let error = assembler.next().err().unwrap();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn descriptors_without_a_frame_are_refused() {
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut assembler = Assembler::resume(&frame(b"x"), vec![file]);
    assert_eq!(&*assembler.next().unwrap().unwrap().body, b"x");
    assert!(assembler.next().err().unwrap().contains("no frame announced"));
}

#[test]
fn what_is_pending_can_go_on_elsewhere() {
    let body = vec![2; 2 * READ_AHEAD];
    let stream = [frame(&body), frame(b"next")].concat();
    for cut in [1, 5, 12, 13, 1000, READ_AHEAD, READ_AHEAD + 100, 2 * READ_AHEAD] {
        let mut first = Assembler::new();
        let mut fed = 0;
        while fed < cut {
            assert!(first.next().unwrap().is_none());
            fed += feed(&mut first, &stream[fed..cut]);
        }
        let (bytes, _) = first.pending();
        let mut second = Assembler::resume(&bytes, Vec::new());
        let mut bodies = Vec::new();
        loop {
            while let Some(frame) = second.next().unwrap() {
                bodies.push(frame.body.into_owned());
            }
            if fed == stream.len() {
                break;
            }
            fed += feed(&mut second, &stream[fed..]);
        }
        assert_eq!(bodies, [&body[..], b"next"], "cut at {cut}");
    }
}

/// Returns a descriptor that can be identified by the length of its file.
fn numbered(n: usize) -> OwnedFd {
    let file = rustix::fs::memfd_create("numbered", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, n as u64).unwrap();
    file
}

fn number_of(descriptor: &OwnedFd) -> i64 {
    rustix::fs::fstat(descriptor).unwrap().st_size
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let length = prop_oneof![
        8 => 0_usize..200,
        1 => READ_AHEAD - 2 * HEADER..READ_AHEAD + 2 * HEADER,
        1 => 0_usize..3 * READ_AHEAD,
    ];
    let body = (length, any::<u8>())
        .prop_map(|(length, first)| (0..length).map(|n| first ^ n.to_le_bytes()[0]).collect());
    prop::collection::vec(body, 1..8)
}

fn indices() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_header_is_what_it_was_or_refused(
        length in any::<u64>(),
        descriptors in prop_oneof![0..6072_u32, any::<u32>()],
    ) {
        let bytes = [&length.to_le_bytes()[..], &descriptors.to_le_bytes()].concat();
        let possible = length <= isize::MAX as u64 && descriptors as usize <= MAX_DESCRIPTORS;
        match Header::parse(bytes.clone().try_into().unwrap()) {
            Ok(header) => {
                prop_assert_eq!(header.length as u64, length);
                prop_assert_eq!(header.descriptors, descriptors as usize);
                prop_assert_eq!(header.to_bytes().to_vec(), bytes);
                prop_assert!(possible);
            }
            Err(_) => prop_assert!(!possible),
        }
    }

    /// In any pieces, and wherever the end moves to another process in between.
    #[test]
    fn frames_and_descriptors_find_each_other(
        bodies in bodies(),
        counts in prop::collection::vec(0..4_usize, 8),
        rides in prop::collection::vec(0..HEADER, 32),
        cuts in indices(),
        moves in any::<u64>(),
    ) {
        let (mut stream, mut riders, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (body, &descriptors) in bodies.iter().zip(&counts) {
            let first = riders.len();
            let mut places = rides[first..first + descriptors].to_vec();
            places.sort_unstable();
            riders.extend((first..).zip(places).map(|(n, place)| (stream.len() + place, n)));
            expected.push((body.clone(), first..first + descriptors));
            stream.extend(Header { length: body.len(), descriptors }.to_bytes());
            stream.extend(body);
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let mut assembler = Assembler::new();
        let (mut at, mut reads, mut came) = (0, 0, Vec::new());
        for end in ends {
            while at < end {
                let count = feed(&mut assembler, &stream[at..end]);
                // Descriptors come with the read that has their byte.
                let here = riders.iter().filter(|(byte, _)| (at..at + count).contains(byte));
                assembler.descriptors.extend(here.map(|(_, n)| numbered(*n)));
                at += count;
                while let Some(Frame { body, descriptors }) = assembler.next().unwrap() {
                    came.push((body.into_owned(), descriptors.iter().map(number_of).collect()));
                }
                if moves >> (reads % 64) & 1 == 1 {
                    let (bytes, queue) = assembler.pending();
                    let copies = queue.iter().map(|fd| fd.try_clone().unwrap()).collect();
                    assembler = Assembler::resume(&bytes, copies);
                }
                reads += 1;
            }
        }
        prop_assert!(!assembler.is_inside_frame());
        let numbers = |range: std::ops::Range<usize>| range.map(|n| n as i64).collect::<Vec<_>>();
        let expected: Vec<_> = expected.into_iter().map(|(body, range)| (body, numbers(range))).collect();
        prop_assert!(came == expected);
    }

    /// For any header.
    #[test]
    fn memory_is_bounded_by_what_came(length in 0..=isize::MAX as usize, came in 0..4 * GROWTH) {
        let mut assembler = Assembler::new();
        let body = vec![0; came.min(length)];
        feed(&mut assembler, &Header { length, descriptors: 0 }.to_bytes());
        let mut rest = &body[..];
        while assembler.next().unwrap().is_none() && !rest.is_empty() {
            let count = feed(&mut assembler, rest);
            rest = &rest[count..];
        }
        let large = assembler.large.as_ref().map_or(0, |(_, body)| body.capacity());
        prop_assert!(assembler.ahead.len() <= READ_AHEAD);
        prop_assert!(large <= 2 * body.len() + GROWTH, "{} for {}", large, body.len());
    }
}

//! Journals that are not as they were written.

use super::*;
use crate::store::journal::inspection::Torn;

#[test]
fn a_newest_segment_that_is_cut_anywhere_is_torn_there_and_goes_on() {
    let mut case = Case::new(700);
    let mut ends = BTreeMap::new();
    for number in 1..=5 {
        case.commit_to(number);
        let newest = case.segments().pop().unwrap();
        ends.insert((newest.first, newest.length), number);
    }
    let newest = case.segments().pop().unwrap();
    assert!(newest.first > 1 && newest.first < 5, "{newest:?}");
    let copy = case.copy();
    let path = copy.path().join(newest.path.file_name().unwrap());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for length in (0..newest.length).rev() {
        file.set_len(length).unwrap();
        let inspection = inspect(copy.path());
        assert_eq!(inspection.damage, None, "{length}");
        let whole = *ends.range(..=(newest.first, length)).next_back().unwrap().1;
        assert_eq!(inspection.newest.unwrap().state.number, whole, "{length}");
        assert!(inspection.is_complete);
        assert_eq!(rebuild(&inspection).unwrap().state.number, whole);
        assert_eq!(inspection.frames(whole).unwrap().count(), 0, "{length}");
        let is_whole = length == HEADER as u64 || ends.contains_key(&(newest.first, length));
        assert_eq!(inspection.torn.is_none(), is_whole, "{length}");
        if let Some(torn) = &inspection.torn {
            assert_eq!((&torn.path, torn.number), (&path, whole + 1), "{length}");
            assert!(is_damaged(&inspection.resume()), "{length}");
        }
        if length % 50 == 0 || is_whole {
            goes_on(copy_of(copy.path()).path());
        }
    }
}

/// Cuts what is torn in the journal in `path`, and commits.
fn goes_on(path: &Path) {
    let mut inspection = inspect(path);
    inspection.cut_tail().unwrap();
    assert_eq!(inspection.bytes, size_of(path));
    let mut model = rebuild(&inspection).unwrap();
    let mut journal = inspection.resume().unwrap();
    let batch = batch(model.state.number + 1);
    model.apply(&batch);
    journal.append(batch.changes(), &model.state, STORE_VERSION).unwrap();
    let again = inspect(path);
    assert_eq!((&again.damage, &again.torn), (&None, &None));
    assert_eq!(rebuild(&again).unwrap().pairs, model.pairs);
}

#[test]
fn a_tail_of_zeros_or_of_noise_is_torn() {
    let mut case = Case::new(SEGMENT);
    case.commit_to(3);
    let segment = case.segments().pop().unwrap();
    for tail in [vec![0; 1], vec![0; 9_000], vec![0xa5; 9_000], vec![0xff; 40]] {
        let copy = case.copy();
        let path = copy.path().join(segment.path.file_name().unwrap());
        let bytes = [fs::read(&path).unwrap(), tail].concat();
        fs::write(&path, bytes).unwrap();
        let mut inspection = inspect(copy.path());
        let torn = Torn { path, offset: segment.length, number: 4 };
        assert_eq!(inspection.torn, Some(torn));
        assert_eq!(inspection.damage, None);
        inspection.cut_tail().unwrap();
        assert_eq!(inspection.torn, None);
        case.check(copy.path());
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_no_frame_is_read_other_than_written() {
    let case = small_case();
    let honest: Vec<_> = case.inspect().frames(2).unwrap().map(|it| it.unwrap().manifest).collect();
    let newest_path = case.segments().pop().unwrap().path;
    for entry in fs::read_dir(case.path()).unwrap() {
        let path = entry.unwrap().path();
        let genuine = fs::read(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for bit in 0..8 * genuine.len() {
            let (byte, at) = (genuine[bit / 8], (bit / 8) as u64);
            file.write_all_at(&[byte ^ 1 << (bit % 8)], at).unwrap();
            let place = || format!("{} bit {bit}", path.display());
            match Journal::inspect(case.path(), &key_of_store(), 0) {
                Err(Error::TooNew { .. }) => panic!("{}", place()),
                Err(error) => panic!("{}: {error}", place()),
                Ok(inspection) => {
                    let is_torn = inspection.torn.as_ref().is_some_and(|torn| torn.number == 5);
                    assert!(inspection.damage.is_some() || is_torn, "{}", place());
                    assert!(!is_torn || path == newest_path, "{}", place());
                    assert_eq!(inspection.is_complete, is_torn, "{}", place());
                    let newest = inspection.newest.unwrap();
                    assert!(newest.state.number >= 4, "{}", place());
                    let after = inspection.unbroken_after;
                    for frame in inspection.frames(after).unwrap() {
                        let manifest = frame.unwrap().manifest;
                        assert!(honest.contains(&manifest), "{}", place());
                    }
                    if path.file_name().unwrap() == "base" {
                        assert!(!rebuild(&inspection).is_ok_and(|_| true), "{}", place());
                    }
                }
            }
            file.write_all_at(&[byte], at).unwrap();
        }
    }
    case.check(case.path());
}

#[test]
fn every_cut_of_a_base_or_of_an_older_segment_is_damage() {
    let case = small_case();
    let newest = case.segments().pop().unwrap().path;
    for entry in fs::read_dir(case.path()).unwrap() {
        let path = entry.unwrap().path();
        let genuine = fs::read(&path).unwrap();
        if path == newest {
            continue;
        }
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for length in (0..genuine.len()).rev() {
            file.set_len(length as u64).unwrap();
            let inspection = case.inspect();
            assert!(inspection.damage.is_some(), "{} {length}", path.display());
            assert!(!inspection.is_complete);
            assert_eq!(inspection.newest.unwrap().state, case.model.state);
            assert!(is_damaged(&inspection.resume()));
        }
        fs::write(&path, &genuine).unwrap();
    }
    case.check(case.path());
}

#[test]
fn damage_in_the_middle_tells_what_is_lost_and_what_is_behind_it() {
    let mut case = Case::new(SEGMENT);
    let mut ends = vec![HEADER as u64];
    for number in 1..=6 {
        case.commit_to(number);
        ends.push(case.segments().pop().unwrap().length);
    }
    let path = case.segments().pop().unwrap().path;
    let genuine = fs::read(&path).unwrap();
    for number in 1..6 {
        // Its length, its number, its state, an operation, its MAC.
        let (begin, end) = (usize::try_from(ends[number - 1]).unwrap(), ends[number]);
        let end = usize::try_from(end).unwrap();
        for at in [begin, begin + 11, begin + 40, begin + 95, end - 33] {
            let mut bytes = genuine.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let inspection = case.inspect();
            let damage = inspection.damage.clone().unwrap();
            assert_eq!((damage.offset, damage.after), (begin as u64, number as u64 - 1));
            assert_eq!((&damage.path, &inspection.torn), (&path, &None));
            assert_eq!(inspection.newest.unwrap().state, case.model.state);
            assert_eq!(inspection.unbroken_after, number as u64);
            assert!(is_damaged(&inspection.frames(number as u64 - 1)));
            let frames = inspection.frames(number as u64).unwrap();
            assert_eq!(frames.map(Result::unwrap).count(), 6 - number);
            assert!(is_damaged(&inspection.resume()));
        }
        // The MAC is what the next frame begins behind: without it there is one frame less.
        let mut bytes = genuine.clone();
        bytes[end - 1] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let inspection = case.inspect();
        assert_eq!(inspection.damage.is_some(), number < 5);
        assert_eq!(inspection.torn.is_some(), number == 5);
    }
}

#[test]
fn a_missing_a_foreign_and_an_exchanged_segment_are_damage() {
    let mut case = Case::new(1);
    case.commit_to(5);
    let [second, third] = [1, 2].map(|at| case.segments()[at].path.clone());

    let bytes = fs::read(&second).unwrap();
    fs::remove_file(&second).unwrap();
    let inspection = case.inspect();
    assert_eq!(inspection.damage.as_ref().unwrap().after, 1);
    assert_eq!(inspection.unbroken_after, 2);
    assert_eq!(inspection.newest.unwrap().state, case.model.state);
    assert!(!inspection.is_complete);
    fs::write(&second, &bytes).unwrap();

    fs::write(&third, &bytes).unwrap();
    assert_eq!(case.inspect().damage.unwrap().after, 2);

    // The same commits in another journal under the same key have another chain.
    let mut other = Case::new(1);
    other.commit_to(5);
    fs::copy(other.segments()[2].path.clone(), &third).unwrap();
    let inspection = case.inspect();
    assert_eq!((inspection.damage.unwrap().after, inspection.unbroken_after), (2, 3));

    let other = Case::new(1);
    let foreign = Journal::inspect(other.path(), &IntegrityKey::new(&[8; 32]), 0).unwrap();
    assert_eq!(foreign.newest, None);
    assert!(is_damaged(&foreign.resume()));
}

#[test]
fn a_segment_that_is_larger_than_it_can_be_is_not_read() {
    let mut case = Case::new(SEGMENT);
    case.commit_to(2);
    let segment = case.segments().pop().unwrap();
    OpenOptions::new().write(true).open(&segment.path).unwrap().set_len(2 << 30).unwrap();
    let inspection = case.inspect();
    assert_eq!(inspection.damage.as_ref().unwrap().offset, 0);
    assert_eq!(inspection.newest, None);
}

#[test]
fn what_looks_like_a_frame_everywhere_is_damage_and_not_searched_for_ever() {
    let mut case = Case::new(SEGMENT);
    case.commit_to(1);
    let path = case.segments().pop().unwrap().path;
    let mut bytes = fs::read(&path).unwrap();
    let candidate = [&0x8000_u32.to_be_bytes()[..], &3_u64.to_be_bytes()].concat();
    bytes.extend(candidate.repeat(1 << 14));
    fs::write(&path, &bytes).unwrap();
    let inspection = case.inspect();
    assert_eq!(inspection.damage.as_ref().unwrap().after, 1);
    assert_eq!(inspection.torn, None);
    assert_eq!(rebuild(&inspection).unwrap().state.number, 1);
}

#[test]
fn a_large_journal_is_read_from_where_it_is_needed() {
    let mut case = Case::new(700);
    case.commit_to(12);
    let whole = case.inspect();
    let path = case.segments()[0].path.clone();
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let make = |after| Inspection::make(case.path(), &key_of_store(), after, 1_000).unwrap();
    let inspection = make(10);
    assert_eq!(inspection.damage, None);
    assert_eq!(inspection.newest, whole.newest);
    assert_eq!(inspection.frames(10).unwrap().map(Result::unwrap).count(), 2);
    // What was not read is verified when it is.
    assert!(is_damaged(&rebuild(&inspection).map(drop)));
    assert!(make(0).damage.is_some());

    bytes[0] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let inspection = make(10);
    assert_eq!(inspection.damage.as_ref().unwrap().path, path);
    assert_eq!(inspection.frames(10).unwrap().map(Result::unwrap).count(), 2);
}

#[test]
fn arbitrary_bytes_are_no_frames() {
    let key = key_of_store();
    let mut seed = 1_u64;
    for length in 0..600 {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        let scan = segment::scan(&bytes, &key, 1).unwrap();
        assert!(scan.run.is_none() && scan.start.is_none());
    }
}

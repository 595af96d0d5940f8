//! Journals whose beginning is replaced or removed.

use super::*;

#[test]
fn a_rewritten_journal_has_nothing_of_what_was_removed() {
    let mut case = Case::new(700);
    case.commit_to(9);
    let former: Vec<_> = case.segments().into_iter().map(|segment| segment.path).collect();
    let links = tempfile::tempdir().unwrap();
    for path in &former {
        fs::hard_link(path, links.path().join(path.file_name().unwrap())).unwrap();
    }
    let pairs = case.model.pairs();
    case.journal().rewrite(pairs).unwrap();
    assert!(former.iter().all(|path| !path.exists()));
    for entry in fs::read_dir(links.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(bytes.len() > HEADER && bytes.iter().all(|byte| *byte == 0));
    }
    assert!(case.journal().is_complete());
    assert_eq!(case.journal().bytes(), size_of(case.path()));
    case.check(case.copy().path());
    case.commit_to(11);
    case.check(case.copy().path());

    // Again, where there is a base already, and right after it, where there is no frame.
    fs::hard_link(case.path().join("base"), links.path().join("base")).unwrap();
    for _ in 0..2 {
        let pairs = case.model.pairs();
        case.journal().rewrite(pairs).unwrap();
        case.check(case.copy().path());
    }
    assert!(fs::read(links.path().join("base")).unwrap().iter().all(|byte| *byte == 0));
    case.commit_to(13);
    case.check(case.path());
}

#[test]
fn a_rewriting_that_is_cut_off_anywhere_loses_nothing_also_of_what_is_appended_meanwhile() {
    let mut case = Case::new(700);
    case.commit_to(9);
    let (former, before, pairs) = (case.segments(), case.copy(), case.model.pairs());
    let mut base = case.journal().begin_rewriting().unwrap();
    // While the next segment is begun.
    let next = case.segments().pop().unwrap().path;
    let begun = fs::read(&next).unwrap();
    for length in 0..=begun.len() {
        fs::write(before.path().join(next.file_name().unwrap()), &begun[..length]).unwrap();
        let inspection = inspect(before.path());
        assert_eq!(inspection.torn.is_some(), length < begun.len(), "{length}");
        assert_eq!(inspection.newest.unwrap().state, case.model.state);
    }
    case.check_copy(before.path());

    // While base.new is written.
    case.commit_to(14);
    let begun = case.copy();
    base.write(pairs).unwrap();
    let bytes = fs::read(case.path().join("base.new")).unwrap();
    for length in [0, 1, bytes.len() / 2, bytes.len()] {
        fs::write(begun.path().join("base.new"), &bytes[..length]).unwrap();
        case.check_copy(begun.path());
    }
    // Once it is in place, with zeros as what was there before it.
    case.commit_to(16);
    let superseded = case.journal().put_base(&base).unwrap();
    case.check_copy(case.path());
    fs::write(case.path().join("base.new"), vec![0; bytes.len()]).unwrap();
    case.check_copy(case.path());
    // While the former segments are erased.
    let put = case.copy();
    for segment in former {
        let path = put.path().join(segment.path.file_name().unwrap());
        let length = usize::try_from(segment.length).unwrap();
        fs::write(&path, vec![0; length]).unwrap();
        case.check_copy(put.path());
        fs::remove_file(&path).unwrap();
        case.check_copy(put.path());
    }
    superseded.erase().unwrap();
    assert_eq!(case.journal().bytes(), size_of(case.path()));
    assert_eq!(case.segments()[0].first, 10);
    case.check(case.path());
}

#[test]
fn what_a_backup_takes_over_during_a_rewriting_leaves_no_gap() {
    for (released, is_complete) in [(5, true), (9, true), (13, false)] {
        let mut case = Case::new(1);
        case.commit_to(9);
        let pairs = case.model.pairs();
        let mut base = case.journal().begin_rewriting().unwrap();
        case.commit_to(14);
        case.journal().release(released).unwrap();
        base.write(pairs).unwrap();
        case.journal().put_base(&base).unwrap().erase().unwrap();
        assert_eq!(case.journal().is_complete(), is_complete, "{released}");
        let inspection = case.inspect();
        assert_eq!((&inspection.damage, inspection.is_complete), (&None, is_complete));
        assert_eq!(inspection.newest.unwrap().state, case.model.state);
        assert_eq!(case.journal().bytes(), size_of(case.path()));
        assert!(!case.path().join("base.new").exists());
    }
}

impl Case {
    /// [`Case::check`] in a copy of `path`, which it leaves without what was left there.
    fn check_copy(&self, path: &Path) {
        let copy = copy_of(path);
        let mut inspection = inspect(copy.path());
        inspection.cut_tail().unwrap();
        drop(inspection.resume().unwrap());
        for left in ["base.new", "discarded"] {
            assert!(!copy.path().join(left).exists());
        }
        let base = copy.path().join("base").exists();
        assert!(Segment::list(copy.path()).unwrap().iter().all(|it| !base || it.first > 9));
        self.check(copy.path());
    }
}

#[test]
fn a_base_of_other_pairs_is_refused_and_the_journal_is_as_it_was() {
    let mut case = Case::new(700);
    case.commit_to(6);
    let mut wrong = [case.model.pairs(), case.model.pairs(), case.model.pairs()];
    wrong[0].pop();
    let twice = case.model.pairs().remove(0);
    wrong[1].push(twice);
    wrong[2][0].as_mut().unwrap().1.1[0] ^= 1;
    for pairs in wrong {
        assert!(is_damaged(&case.journal().rewrite(pairs)));
        case.check(case.copy().path());
    }
    let mut failing = case.model.pairs();
    failing.push(Err(Error::ReadOnly));
    assert!(matches!(case.journal().rewrite(failing), Err(Error::ReadOnly)));
    let start = *case.journal().newest();
    assert!(is_damaged(&Journal::restart(case.path(), &key_of_store(), &start, [])));
    case.commit_to(7);
    case.check(case.copy().path());
    assert!(!case.path().join("base.new").exists());

    let mut unordered = case.model.pairs();
    unordered.reverse();
    case.journal().rewrite(unordered).unwrap();
    case.check(case.path());
}

#[test]
fn a_damaged_journal_is_restarted_from_the_pairs() {
    let mut case = Case::new(700);
    case.commit_to(8);
    let start = *case.journal().newest();
    for segment in case.segments() {
        let mut bytes = fs::read(&segment.path).unwrap();
        bytes[HEADER + 50] ^= 4;
        fs::write(&segment.path, bytes).unwrap();
    }
    assert!(case.inspect().damage.is_some());
    let pairs = case.model.pairs();
    let restarted = Journal::restart(case.path(), &key_of_store(), &start, pairs).unwrap();
    assert!(restarted.is_complete());
    case.check(case.copy().path());

    // Behind an older state than the journal has, and behind a later number.
    let mut older = Case::new(700);
    older.commit_to(3);
    let pairs = older.model.pairs();
    let mut start = *older.journal().newest();
    Journal::restart(case.path(), &key_of_store(), &start, pairs).unwrap();
    older.check(case.copy().path());
    start.state.number = 40;
    older.model.state.number = 40;
    let pairs = older.model.pairs();
    Journal::restart(case.path(), &key_of_store(), &start, pairs).unwrap();
    older.check(case.path());
}

#[test]
fn what_a_backup_holds_is_released_and_erased() {
    let mut case = small_case();
    case.commit_to(12);
    let links = tempfile::tempdir().unwrap();
    for name in ["base", "0000000000000003.log"] {
        fs::hard_link(case.path().join(name), links.path().join(name)).unwrap();
    }
    // One older than the base has nothing that could go.
    case.journal().release(1).unwrap();
    assert!(case.journal().is_complete());
    case.check(case.copy().path());

    let segments = case.segments();
    let held = segments[2].first - 1;
    case.journal().release(held - 1).unwrap();
    assert_eq!(case.segments()[0].first, segments[1].first);
    case.journal().release(held).unwrap();
    assert_eq!(case.segments()[0].first, segments[2].first);
    assert!(!case.journal().is_complete());
    assert_eq!(case.journal().bytes(), size_of(case.path()));
    for name in ["base", "0000000000000003.log"] {
        assert!(fs::read(links.path().join(name)).unwrap().iter().all(|byte| *byte == 0));
    }
    let inspection = case.inspect();
    assert_eq!((&inspection.damage, inspection.is_complete), (&None, false));
    assert_eq!(inspection.unbroken_after, held);
    assert_eq!(inspection.frames(held).unwrap().map(Result::unwrap).count() as u64, 12 - held);
    assert!(!inspection.resume().unwrap().is_complete());

    // Everything but the segment that is written, which says where the journal is.
    case.journal().release(u64::MAX).unwrap();
    assert_eq!(case.segments().len(), 1);
    case.commit_to(13);
    assert_eq!(case.inspect().newest.unwrap().state, case.model.state);
    let pairs = case.model.pairs();
    case.journal().rewrite(pairs).unwrap();
    case.check(case.path());
}

use super::*;
use crate::core::contract::{ExtensionIds, Feedback};

fn open(session: u32, shard: u32) -> Command {
    let ufrag = format!("u{session}");
    Command::OpenSession { session, ufrag, password: String::new(), extensions: ExtensionIds::default(), shard }
}

fn media() -> Media {
    Media { mid: "0".into(), payload_types: Vec::new(), layers: Vec::new(), feedback: Feedback::default() }
}

fn track(track: u32, session: Option<u32>) -> Command {
    Command::AddTrack { track, session, kind: Kind::Audio, media: media() }
}

fn slot(slot: u32, session: u32) -> Command {
    Command::AddSlot(NewSlot {
        slot,
        session,
        kind: Kind::Audio,
        mid: "0".into(),
        ssrc: slot,
        rtx_ssrc: None,
        payload_types: Vec::new(),
        feedback: Feedback::default(),
        cname: String::new(),
    })
}

fn bind(slot: u32, track: impl Into<Option<u32>>) -> Command {
    Command::BindSlot { slot, track: track.into(), layer: 0, payload_type: None }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::OpenSession { .. } => "open",
        Command::CloseSession { .. } => "close",
        Command::AddTrack { .. } => "add track",
        Command::RemoveTrack { .. } => "remove track",
        Command::MoveTrack { .. } => "move track",
        Command::MuteTrack { .. } => "mute",
        Command::AddSlot(_) => "add slot",
        Command::BindSlot { .. } => "bind",
        Command::RemoveSlot { .. } => "remove slot",
        Command::MirrorTrack { .. } => "mirror",
        Command::DropMirror { at_once: true, .. } => "drop",
        Command::DropMirror { at_once: false, .. } => "release",
        Command::HandOverTrack { .. } => "hand over",
        Command::ShareTrack { .. } => "share",
        _ => "other",
    }
}

fn steps(router: &mut Router, commands: Vec<Command>) -> Vec<(usize, &'static str)> {
    let (steps, done) = router.plan(commands);
    assert!(done.is_ok());
    steps.iter().map(|step| (step.shard, name(&step.command))).collect()
}

/// A publisher on shard 0, a publisher on shard 1, a viewer on shard 2; tracks 10 and 11, slots 20 and 21.
fn stage() -> Router {
    let mut router = Router::new(3);
    let commands =
        vec![open(1, 0), open(2, 1), open(3, 2), track(10, Some(1)), track(11, Some(2)), slot(20, 3), slot(21, 3)];
    let made = steps(&mut router, commands);
    assert_eq!(made.iter().map(|step| step.0).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 2]);
    assert_eq!(router.sessions(), [1, 1, 1]);
    router
}

#[test]
fn the_first_slot_of_a_shard_brings_a_mirror_and_the_last_one_releases_it() {
    let mut router = stage();
    let first = [(2, "mirror"), (2, "mute"), (0, "share"), (2, "bind")];
    assert_eq!(steps(&mut router, vec![bind(20, 10)]), first);
    assert_eq!(steps(&mut router, vec![bind(21, 10)]), [(2, "bind")]);
    assert_eq!(steps(&mut router, vec![bind(21, 10)]), [(2, "bind")]);
    assert_eq!(steps(&mut router, vec![bind(21, None)]), [(2, "bind")]);
    assert_eq!(steps(&mut router, vec![Command::RemoveSlot { slot: 20 }]), [(2, "remove slot"), (2, "release")]);
    assert_eq!(steps(&mut router, vec![bind(21, 10)]), first);
}

#[test]
fn another_track_is_mirrored_before_the_former_one_is_released() {
    let mut router = stage();
    steps(&mut router, vec![bind(20, 10)]);
    let expected = [(2, "mirror"), (2, "mute"), (1, "share"), (2, "bind"), (2, "release")];
    assert_eq!(steps(&mut router, vec![bind(20, 11)]), expected);
}

#[test]
fn mirrors_are_muted_and_dropped_with_their_track() {
    let mut router = stage();
    steps(&mut router, vec![bind(20, 10)]);
    assert_eq!(steps(&mut router, vec![Command::MuteTrack { track: 10, muted: true }]), [(0, "mute"), (2, "mute")]);
    assert_eq!(steps(&mut router, vec![Command::CloseSession { session: 1 }]), [(0, "close"), (2, "drop")]);
    assert_eq!(steps(&mut router, vec![bind(20, 11)]).last(), Some(&(2, "bind")));
}

#[test]
fn a_track_that_moves_takes_its_mirrors_along() {
    let mut router = stage();
    steps(&mut router, vec![bind(20, 10), slot(22, 1), bind(22, 10)]);
    let moved = Command::MoveTrack { track: 10, session: 2, media: media() };
    let expected = [
        (1, "add track"),
        (0, "hand over"),
        (0, "mirror"),
        (0, "mute"),
        (1, "share"),
        (2, "mirror"),
        (2, "mute"),
        (1, "share"),
    ];
    assert_eq!(steps(&mut router, vec![moved]), expected);
    let home = Command::MoveTrack { track: 10, session: 1, media: media() };
    let expected = [(0, "move track"), (1, "hand over"), (1, "remove track"), (2, "mirror"), (2, "mute"), (0, "share")];
    assert_eq!(steps(&mut router, vec![home]), expected);
}

#[test]
fn what_was_refused_is_undone() {
    let mut router = stage();
    let commands = vec![bind(20, 10), Command::CloseSession { session: 2 }, open(4, 1)];
    assert_eq!(steps(&mut router, commands).len(), 6);
    let cleaned = router.undo(0);
    assert_eq!(cleaned.iter().map(|step| (step.shard, name(&step.command))).collect::<Vec<_>>(), [(2, "release")]);
    assert_eq!(router.sessions(), [1, 1, 1]);
    assert_eq!(steps(&mut router, vec![bind(20, 11)]), [(2, "mirror"), (2, "mute"), (1, "share"), (2, "bind")]);
}

#[test]
fn what_does_not_exist_goes_to_the_first_shard_and_what_does_to_its_own() {
    let mut router = stage();
    let unknown = vec![Command::CloseSession { session: 9 }, bind(29, 10), Command::RemoveTrack { track: 19 }];
    assert_eq!(steps(&mut router, unknown), [(0, "close"), (0, "bind"), (0, "remove track")]);
    assert_eq!(steps(&mut router, vec![open(2, 0), track(11, Some(1))]), [(1, "open"), (1, "add track")]);
    assert_eq!(router.sessions(), [1, 1, 1]);
    assert!(router.plan(vec![open(5, 3)]).1.is_err());
}

#[test]
fn taps_of_a_ring_are_where_its_writer_is() {
    let mut router = stage();
    let tap = Command::AddTap { tap: 30, track: 10, layer: 0, ring: Some(4), canonical: false };
    assert_eq!(steps(&mut router, vec![tap]), [(1, "mirror"), (1, "mute"), (0, "share"), (1, "other")]);
    let gone = [(1, "other"), (1, "release")];
    assert_eq!(steps(&mut router, vec![Command::RemoveRingTaps { ring: 4 }]), gone);
    let tap = Command::AddTap { tap: 31, track: 10, layer: 0, ring: None, canonical: false };
    assert_eq!(steps(&mut router, vec![tap]), [(0, "other")]);
}

#[test]
fn injected_tracks_live_on_the_first_shard() {
    let mut router = Router::new(2);
    assert_eq!(steps(&mut router, vec![track(1, None), track(2, None)]), [(0, "add track"), (0, "add track")]);
    assert_eq!((router.injected(2), router.injected(3)), (Some((0, 0)), None));
}

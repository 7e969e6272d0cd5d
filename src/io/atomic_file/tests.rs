use super::*;

use std::process::{Command, Stdio};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs the named test of this module once more, in a process that finds `path` in
/// `CONVNET_TEST_PATH`.
fn again_in_a_process(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("io::atomic_file::tests::{test}"), "--exact", "--nocapture"]).env("CONVNET_TEST_PATH", path);
    command.stdout(Stdio::piped());
    command
}

#[test]
fn failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write_atomically(&path, |out| out.write_all(b"old")).unwrap();
    let error = write_atomically(&path, |out| {
        out.write_all(b"new")?;
        Err(io::Error::other("the disk is full"))
    });
    assert!(error.unwrap_err().to_string().contains("the disk is full"));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn writer_removes_no_other_writers_file_and_the_last_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write_atomically(&path, |out| {
        out.write_all(b"first")?;
        write_atomically(&path, |out| out.write_all(b"second")).unwrap();
        assert_eq!(fs::read(&path)?, b"second");
        assert_eq!(names(folder.path()).len(), 2, "the first writer's temporary file is still there");
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn threads_that_save_to_one_path_all_succeed_and_leave_one_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    write_atomically(path, |out| out.write_all(&[thread; 5000])).unwrap();
                    let content = fs::read(path).unwrap();
                    assert!(content.len() == 5000 && content.iter().all(|&byte| byte == content[0]));
                }
            });
        }
    });
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn processes_that_save_to_one_path_all_succeed_and_leave_one_whole_file() {
    if let Some(path) = std::env::var_os("CONVNET_TEST_PATH") {
        for _ in 0..30 {
            write_atomically(Path::new(&path), |out| out.write_all(&[std::process::id() as u8; 5000])).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let test = "processes_that_save_to_one_path_all_succeed_and_leave_one_whole_file";
    let writers: Vec<_> = (0..4).map(|_| again_in_a_process(test, &path).spawn().unwrap()).collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }
    let content = fs::read(&path).unwrap();
    assert!(content.len() == 5000 && content.iter().all(|&byte| byte == content[0]));
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn leftover_of_a_killed_writer_goes_with_the_next_save_to_the_same_file() {
    if let Some(path) = std::env::var_os("CONVNET_TEST_PATH") {
        let endless = write_atomically(Path::new(&path), |out| {
            out.write_all(b"half")?;
            println!("begun");
            loop {
                std::thread::park();
            }
        });
        unreachable!("{endless:?}");
    }
    use std::io::BufRead;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let test = "leftover_of_a_killed_writer_goes_with_the_next_save_to_the_same_file";
    let mut writer = again_in_a_process(test, &path).spawn().unwrap();
    let lines = io::BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(lines.map(|line| line.unwrap()).any(|line| line.ends_with("begun")));
    write_atomically(&path, |out| out.write_all(b"meanwhile")).unwrap();
    assert_eq!(names(folder.path()).len(), 2, "a writer at work is left alone");
    writer.kill().unwrap();
    writer.wait().unwrap();
    write_atomically(&folder.path().join("another"), |out| out.write_all(b"whole")).unwrap();
    assert_eq!(names(folder.path()).len(), 3, "another target's leftover is left alone");
    write_atomically(&path, |out| out.write_all(b"whole")).unwrap();
    assert_eq!(names(folder.path()), ["another", "file"]);
    assert_eq!(fs::read(&path).unwrap(), b"whole");
}

#[test]
fn only_names_of_temporary_files_are_leftovers() {
    let prefix = temporary_prefix(Path::new("/a/net.safetensors")).unwrap();
    assert!(is_temporary(".net.safetensors.0123456789abcdef.tmp", &prefix));
    for other in ["net.safetensors", ".net.safetensors.tmp", ".net.safetensors.0123456789abcde.tmp", ".net.safetensors.backup_of_today.tmp"]
    {
        assert!(!is_temporary(other, &prefix), "{other}");
    }
}

#[test]
fn name_as_long_as_file_systems_allow_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n".repeat(255));
    write_atomically(&path, |out| out.write_all(b"whole")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn permissions_of_the_old_file_are_kept_from_the_first_byte_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for mode in [0o600, 0o640, 0o444, 0o755] {
            write_atomically(&path, |out| out.write_all(b"old")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            write_atomically(&path, |out| {
                for name in names(folder.path()) {
                    assert_eq!(fs::metadata(folder.path().join(&name))?.permissions().mode() & 0o7777, mode, "{name}");
                }
                out.write_all(b"new")
            })
            .unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            assert_eq!(fs::read(&path).unwrap(), b"new");
        }
    }

    #[test]
    fn symbolic_link_stays_one_and_its_target_is_replaced_or_created() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        let (link, second, target) = (folder.path().join("link"), folder.path().join("second"), folder.path().join("elsewhere/file"));
        symlink("elsewhere/file", &link).unwrap();
        symlink(&link, &second).unwrap();
        for content in [b"dangling", b"existing"] {
            write_atomically(&second, |out| out.write_all(content)).unwrap();
            assert_eq!(fs::read(&target).unwrap(), content);
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("elsewhere/file"));
            assert_eq!(fs::read_link(&second).unwrap(), link);
        }
        assert_eq!(names(folder.path()), ["elsewhere", "link", "second"]);
        assert_eq!(names(&folder.path().join("elsewhere")), ["file"]);
    }

    #[test]
    fn link_into_a_missing_folder_and_a_link_to_itself_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        symlink("nowhere/file", folder.path().join("lost")).unwrap();
        symlink("round", folder.path().join("round")).unwrap();
        for name in ["lost", "round"] {
            let error = write_atomically(&folder.path().join(name), |out| out.write_all(b"x")).unwrap_err();
            assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(name)), "{error}");
        }
        assert_eq!(names(folder.path()), ["lost", "round"]);
    }

    #[test]
    fn devices_and_named_pipes_are_written_to_and_not_replaced() {
        write_atomically(Path::new("/dev/null"), |out| out.write_all(b"gone")).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_atomically(&pipe, |out| out.write_all(b"through the pipe")).unwrap();
        assert_eq!(reader.join().unwrap(), b"through the pipe");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["pipe"]);
    }
}

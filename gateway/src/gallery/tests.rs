use super::*;
use crate::files::DataDirectory;
use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;
use tempfile::TempDir;

struct House {
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "it is removed when the test is over")
    )]
    place: TempDir,
    data: DataDirectory,
    gallery: Gallery,
}

fn id(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn named(text: &str) -> RelativePath {
    RelativePath::parse(text).unwrap()
}

impl House {
    fn build() -> Self {
        let place = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(&place.path().join("data")).unwrap();
        for user in ["anna", "ben"] {
            fs::create_dir_all(data.users().join(user).join("output")).unwrap();
        }
        Self {
            gallery: Gallery::new(&data),
            place,
            data,
        }
    }

    fn output(&self, user: &str) -> PathBuf {
        self.data.users().join(user).join("output")
    }

    /// Writes a file that is `age` seconds old.
    fn write(&self, user: &str, path: &str, age: u64) {
        let path = self.output(user).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.to_str().unwrap()).unwrap();
        let at = SystemTime::now() - Duration::from_secs(age);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(at)
            .unwrap();
    }

    async fn page(&self, user: &str, limit: usize, before: Option<Cursor>) -> Page {
        let wanted = Wanted {
            limit,
            before,
            kind: None,
        };
        self.gallery
            .page(&id(user), self.output(user), wanted)
            .await
            .unwrap()
    }

    /// Of the tests with symbolic links.
    #[cfg(unix)]
    async fn open(&self, user: &str, path: &str) -> Result<Opened, GalleryError> {
        self.gallery
            .open(&id(user), self.output(user), named(path))
            .await
    }
}

fn paths(page: &Page) -> Vec<&str> {
    page.items.iter().map(|item| item.path().as_str()).collect()
}

#[tokio::test]
async fn pages_are_newest_first_and_stay_when_new_files_come() {
    let house = House::build();
    for number in 0..30 {
        house.write(
            "anna",
            &format!("{}/{number:02}.png", number % 3),
            100 + number,
        );
    }
    house.write("anna", ".hidden.png", 1);
    house.write("anna", "_output_images_will_be_put_here", 1);
    house.write("ben", "his.png", 1);
    let first = house.page("anna", 10, None).await;
    assert_eq!(&paths(&first)[..3], ["0/00.png", "1/01.png", "2/02.png"]);
    assert!(first.is_complete && first.total_bytes > 0);
    house.write("anna", "new.png", 0);
    house.write("anna", "0/new.png", 50);
    let cursor = Cursor::parse(&first.next.clone().unwrap().text());
    assert_eq!(cursor, first.next);
    let second = house.page("anna", 10, cursor).await;
    let third = house.page("anna", 10, second.next.clone()).await;
    assert_eq!(third.next, None);
    let all: BTreeSet<&str> = [&first, &second, &third]
        .into_iter()
        .flat_map(paths)
        .collect();
    assert_eq!(all.len(), 30);
    assert_eq!(paths(&house.page("anna", 1, None).await), ["new.png"]);
    assert_eq!(paths(&house.page("ben", 5, None).await), ["his.png"]);
    for wrong in ["", "x", "MTI", "OjE", "MTo", "MTouLi94"] {
        assert_eq!(Cursor::parse(wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn a_kind_is_picked_and_no_directory_is_an_empty_gallery() {
    let house = House::build();
    let user = id("anna");
    for (age, name) in ["a.png", "b.mp4", "c.flac", "d.svg", "e.latent"]
        .iter()
        .enumerate()
    {
        house.write("anna", name, u64::try_from(age).unwrap());
    }
    for (kind, expected) in [
        (Some(MediaKind::Image), vec!["a.png"]),
        (Some(MediaKind::Video), vec!["b.mp4"]),
        (Some(MediaKind::Audio), vec!["c.flac"]),
        (Some(MediaKind::Other), vec!["d.svg", "e.latent"]),
        (None, vec!["a.png", "b.mp4", "c.flac", "d.svg", "e.latent"]),
    ] {
        let wanted = Wanted {
            limit: 10,
            before: None,
            kind,
        };
        let page = house.gallery.page(&user, house.output("anna"), wanted);
        assert_eq!(paths(&page.await.unwrap()), expected);
    }
    let nobody = house.page("nobody", 10, None).await;
    assert!(nobody.items.is_empty() && nobody.is_complete);
}

#[cfg(unix)]
#[tokio::test]
async fn no_symbolic_link_leads_out() {
    use std::os::unix::fs::symlink;
    let house = House::build();
    house.write("ben", "secret.png", 1);
    house.write("anna", "sub/own.png", 1);
    let outside = house.place.path().join("outside.png");
    fs::write(&outside, "x").unwrap();
    let (user, anna) = (id("anna"), house.output("anna"));
    symlink(house.output("ben"), anna.join("ben")).unwrap();
    symlink(
        house.output("ben").join("secret.png"),
        anna.join("file.png"),
    )
    .unwrap();
    symlink("../../ben/output/secret.png", anna.join("relative.png")).unwrap();
    symlink("/", anna.join("root")).unwrap();
    symlink(&anna, anna.join("loop")).unwrap();
    assert_eq!(paths(&house.page("anna", 50, None).await), ["sub/own.png"]);
    let root = format!("root{}", outside.display());
    for path in ["ben/secret.png", "file.png", "relative.png", root.as_str()] {
        let opened = house.open("anna", path).await;
        assert!(
            matches!(opened, Err(GalleryError::NotFound)),
            "{path}: {opened:?}"
        );
        let small = house.gallery.thumbnail(&user, anna.clone(), named(path));
        assert!(small.await.is_err(), "{path}");
        let deleted = house.gallery.delete(&user, anna.clone(), vec![named(path)]);
        assert!(deleted.await.is_err(), "{path}");
    }
    assert!(house.output("ben").join("secret.png").exists() && outside.exists());
    assert!(house.open("anna", "sub/own.png").await.is_ok());
}

#[cfg(unix)]
#[tokio::test]
async fn an_output_directory_that_was_replaced_leads_nowhere() {
    use std::os::unix::fs::symlink;
    let house = House::build();
    let user = id("anna");
    house.write("ben", "secret.png", 1);
    fs::remove_dir_all(house.output("anna")).unwrap();
    for target in [
        house.output("ben"),
        PathBuf::from("../ben/output"),
        PathBuf::from("/"),
    ] {
        symlink(&target, house.output("anna")).unwrap();
        let wanted = Wanted {
            limit: 10,
            before: None,
            kind: None,
        };
        let page = house.gallery.page(&user, house.output("anna"), wanted);
        assert!(page.await.is_err(), "{target:?}");
        assert!(
            house.open("anna", "secret.png").await.is_err(),
            "{target:?}"
        );
        fs::remove_file(house.output("anna")).unwrap();
    }
    // Nor does a cache.
    fs::create_dir_all(house.output("anna")).unwrap();
    image::RgbImage::new(4, 4)
        .save(house.output("anna").join("a.png"))
        .unwrap();
    symlink(house.place.path(), house.data.users().join("anna/cache")).unwrap();
    let small = house
        .gallery
        .thumbnail(&user, house.output("anna"), named("a.png"));
    assert!(small.await.is_ok());
    assert!(!house.place.path().join("thumbnails").exists());
}

#[tokio::test]
async fn nothing_is_deleted_when_one_of_the_list_is_not_there() {
    let house = House::build();
    let user = id("anna");
    house.write("anna", "a.png", 1);
    house.write("anna", "sub/b.png", 1);
    let delete = |paths: &[&str]| {
        let paths = paths.iter().map(|path| named(path)).collect();
        house.gallery.delete(&user, house.output("anna"), paths)
    };
    for wrong in ["missing.png", "sub", "ben/output/x.png"] {
        assert!(delete(&["a.png", wrong]).await.is_err(), "{wrong}");
        assert!(house.output("anna").join("a.png").exists(), "{wrong}");
    }
    delete(&["a.png", "sub/b.png"]).await.unwrap();
    assert!(paths(&house.page("anna", 5, None).await).is_empty());
}

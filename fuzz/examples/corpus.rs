//! `corpus`: the names of the readers. `corpus NAME DIRECTORY`: writes its examples there, for the fuzzer to begin with.

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory] = &arguments[..] else {
        pgherd_fuzz::targets().iter().for_each(|target| println!("{}", target.name));
        return Ok(());
    };
    let target = pgherd_fuzz::targets().into_iter().find(|target| target.name == name);
    let Some(target) = target else { return Err(std::io::Error::other(format!("there is no reader {name:?}"))) };
    for (number, example) in target.examples.iter().enumerate() {
        std::fs::write(std::path::Path::new(directory).join(format!("example-{number}")), example)?;
    }
    Ok(())
}

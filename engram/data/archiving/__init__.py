"""Parts of archives: entries and their names, zip and tar files, class folders, what is left out."""

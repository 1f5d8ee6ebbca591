# What a kernel can do on BFS through unmodified go-nfs: everyday work as one user. (No hard links, no nodes, no users.)
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

check 'files are written, read, renamed and removed' => sub {
	put("$dir/f$_", "file $_\n" x (100 * $_)) for 1 .. 20;
	drop();
	same("content of f$_", get("$dir/f$_"), "file $_\n" x (100 * $_)) for 1 .. 20;
	rename "$dir/f1", "$dir/g1" or fail('rename');
	unlink "$dir/f2" or fail('unlink');
	drop();
	same('names', names($dir), join ' ', sort 'g1', map { "f$_" } 3 .. 20);
};

check 'directories and symbolic links' => sub {
	mkdir "$dir/d" or fail('mkdir');
	put("$dir/d/f", 'deep');
	symlink 'd/f', "$dir/s" or fail('symlink');
	drop();
	same('target', readlink "$dir/s", 'd/f');
	same('through the link', get("$dir/s"), 'deep');
	unlink "$dir/d/f" or fail('unlink');
	rmdir "$dir/d" or fail('rmdir');
	same('names', names($dir), 's');
};

check 'the relay shows the same files' => sub {
	my $there = $other . substr $dir, length $nfs;
	put("$dir/f", 'by go-nfs');
	same('content', get("$there/f"), 'by go-nfs');
	put("$there/g", 'by the relay');
	drop();
	same('content', get("$dir/g"), 'by the relay');
};

check 'a megabyte in many writes' => sub {
	my $text = join '', map { pack 'N', $_ } 1 .. 1 << 18;
	put("$dir/f", $text);
	drop();
	get("$dir/f") eq $text or die "content differs\n";
};

# Who may do what: modes, umask, owners, groups, sticky and set-id bits, root squashed and not.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

my ($ann, $bob) = (1001, 1002);
my ($staff, $guests) = (2001, 2002);

# open_to_all: the check's directory, writable by every user.
sub open_to_all { chmod 0777, $dir or fail("chmod $dir") }

check 'chmod' => sub {
	put("$dir/f", 'x');
	for my $mode (0, 0444, 0600, 0755, 0777, 01777, 02755, 04755, 06711) {
		chmod $mode, "$dir/f" or fail("chmod $mode");
		drop() if $mode == 06711;
		same('mode', mode("$dir/f"), sprintf '%04o', $mode);
	}
};

check 'umask' => sub {
	open_to_all();
	for my $mask (0, 022, 027, 077, 0177) {
		my $was = umask $mask;
		as($ann, $staff, sub {
			sysopen my $h, "$dir/f$mask", O_CREAT | O_WRONLY, 0666 or fail('create');
			mkdir "$dir/d$mask", 0777 or fail('mkdir');
		});
		umask $was;
		same("file under $mask", mode("$dir/f$mask"), sprintf '%04o', 0666 & ~$mask);
		same("directory under $mask", mode("$dir/d$mask"), sprintf '%04o', 0777 & ~$mask);
		same('owner', owner("$dir/f$mask"), "$ann:$staff");
	}
};

check 'modes are kept for several users' => sub {
	open_to_all();
	as($ann, $staff, sub { put("$dir/f", 'mine'); chmod 0640, "$dir/f" or fail('chmod') });
	same('owner reads', as($ann, $guests, sub { get("$dir/f") }), 'mine');
	same('group reads', as($bob, $staff, sub { get("$dir/f") }), 'mine');
	refused('group writes', EACCES, sub { as($bob, $staff, sub { open my $h, '>>', "$dir/f" }) });
	refused('another reads', EACCES, sub { as($bob, $guests, sub { open my $h, '<', "$dir/f" }) });
	same('a supplementary group reads', as($bob, "$guests 7 8 $staff", sub { get("$dir/f") }), 'mine');
	same('the sixteenth group reads', as($bob, "$guests " . join(' ', 3001 .. 3015, $staff), sub { get("$dir/f") }), 'mine');
	chmod 0604, "$dir/f" or fail('chmod');
	refused('the group is refused what others may', EACCES, sub { as($bob, $staff, sub { open my $h, '<', "$dir/f" }) });
	same('others may', as($bob, $guests, sub { get("$dir/f") }), 'mine');
};

check 'only the owner changes mode and times' => sub {
	open_to_all();
	as($ann, $staff, sub { put("$dir/f", 'x') });
	chmod 0666, "$dir/f" or fail('chmod');
	refused("another's chmod", EPERM, sub { as($bob, $staff, sub { chmod 0600, "$dir/f" }) });
	refused("another's setting of times", EPERM, sub { as($bob, $staff, sub { utime 1, 1, "$dir/f" }) });
	works('touch by one who may write', as($bob, $staff, sub { utime undef, undef, "$dir/f" }));
	works("the owner's setting of times", as($ann, $staff, sub { utime 5, 7, "$dir/f" }));
	drop();
	same('times', join(' ', (stat "$dir/f")[8, 9]), '5 7');
};

check 'chown' => sub {
	open_to_all();
	put("$dir/f", 'x');
	chown $ann, $staff, "$dir/f" or fail('chown by root');
	same('owner', owner("$dir/f"), "$ann:$staff");
	refused('giving a file away', EPERM, sub { as($ann, $staff, sub { chown $bob, -1, "$dir/f" }) });
	refused('a group one is not in', EPERM, sub { as($ann, $staff, sub { chown -1, $guests, "$dir/f" }) });
	works('a group one is in', as($ann, "$staff $guests", sub { chown -1, $guests, "$dir/f" }));
	drop();
	same('owner', owner("$dir/f"), "$ann:$guests");
	chmod 06755, "$dir/f" or fail('chmod');
	works('chown by the owner', as($ann, "$staff $guests", sub { chown -1, $staff, "$dir/f" }));
	drop();
	same('set-id bits are gone', mode("$dir/f"), '0755');
};

check 'a write by another clears set-id bits' => sub {
	open_to_all();
	as($ann, $staff, sub { put("$dir/f", 'x') });
	chmod 06777, "$dir/f" or fail('chmod');
	as($bob, $guests, sub { open my $h, '>>', "$dir/f" or fail('open'); print $h 'y'; close $h or fail('close') });
	drop();
	same('mode', mode("$dir/f"), '0777');
};

check 'sticky directory' => sub {
	chmod 01777, $dir or fail('chmod');
	as($ann, $staff, sub { put("$dir/f", 'x') });
	refused("removal of another's file", EPERM, EACCES, sub { as($bob, $staff, sub { unlink "$dir/f" }) });
	refused("renaming of another's file", EPERM, EACCES, sub { as($bob, $staff, sub { rename "$dir/f", "$dir/g" }) });
	as($bob, $staff, sub { put("$dir/h", 'y') });
	refused("renaming over another's file", EPERM, EACCES, sub { as($bob, $staff, sub { rename "$dir/h", "$dir/f" }) });
	works('removal by the owner', as($ann, $staff, sub { unlink "$dir/f" }));
};

check 'set-group-id directory' => sub {
	chown 0, $guests, $dir or fail('chown');
	chmod 02777, $dir or fail('chmod');
	as($ann, $staff, sub { put("$dir/f", 'x'); mkdir "$dir/d" or fail('mkdir') });
	same('group of the file', owner("$dir/f"), "$ann:$guests");
	same('group of the directory', owner("$dir/d"), "$ann:$guests");
	same('the bit is handed down', mode("$dir/d"), '2755');
};

check 'directories need search and write permission' => sub {
	open_to_all();
	as($ann, $staff, sub { mkdir "$dir/d" or fail('mkdir'); put("$dir/d/f", 'x') });
	chmod 0744, "$dir/d" or fail('chmod');
	same('listing', as($bob, $guests, sub { names("$dir/d") }), 'f');
	drop();
	refused('a file in it', EACCES, sub { as($bob, $guests, sub { open my $h, '<', "$dir/d/f" }) });
	chmod 0711, "$dir/d" or fail('chmod');
	drop();
	same('a file in it by name', as($bob, $guests, sub { get("$dir/d/f") }), 'x');
	refused('listing', EACCES, sub { as($bob, $guests, sub { opendir my $h, "$dir/d" }) });
	refused('creating in it', EACCES, sub { as($bob, $guests, sub { mkdir "$dir/d/new" }) });
	refused('removing from it', EACCES, sub { as($bob, $guests, sub { unlink "$dir/d/f" }) });
};

check 'execution of what may not be read' => sub {
	open_to_all();
	system('cp', '/bin/true', "$dir/program") == 0 or fail('cp');
	chmod 0711, "$dir/program" or fail('chmod');
	drop();
	refused('reading it', EACCES, sub { as($bob, $guests, sub { open my $h, '<', "$dir/program" }) });
	my $pid = fork // fail('fork');
	if (!$pid) { $) = "$guests $guests"; $( = $guests; ($<, $>) = ($bob, $bob); exec "$dir/program" or POSIX::_exit(126) }
	waitpid $pid, 0;
	same('running it', $?, 0);
};

check 'the owner writes on after the mode is gone' => sub {
	open_to_all();
	as($ann, $staff, sub {
		open my $h, '>', "$dir/f" or fail('create');
		chmod 0400, "$dir/f" or fail('chmod');
		print $h 'still' or fail('write');
		close $h or fail('close');
	});
	drop();
	same('content', get("$dir/f"), 'still');
};

check 'root not squashed' => sub {
	as_owner($ann, 'f');
	same('reads anything', get("$dir/f"), 'x');
	works('chown', chown $bob, $guests, "$dir/f");
	put("$dir/g", '');
	same('owns what it makes', owner("$dir/g"), '0:0');
};

sub as_owner {
	my ($uid, $name) = @_;
	open_to_all();
	as($uid, $staff, sub { put("$dir/$name", 'x'); chmod 0600, "$dir/$name" or fail('chmod') });
}

# $SQUASHED is a directory, open to all, of an export whose root is squashed to $ANONYMOUS.
if (my $squashed = $ENV{SQUASHED}) {
	$nfs = $squashed;
	check 'root squashed' => sub {
		put("$dir/f", 'by nobody');
		my ($uid) = split /:/, owner("$dir/f");
		same('the owner of what root makes', $uid, $ENV{ANONYMOUS} // 65534);
		refused('chown', EPERM, sub { chown $ann, $staff, "$dir/f" });
		chmod 0777, $dir or fail('chmod of its own directory');
		as($ann, $staff, sub { put("$dir/private", 'x'); chmod 0600, "$dir/private" or fail('chmod') });
		drop();
		refused("reading another's file", EACCES, sub { open my $h, '<', "$dir/private" });
		refused("another's chmod", EPERM, sub { chmod 0644, "$dir/private" });
		same('owner', owner("$dir/private"), "$ann:$staff");
		works('the owner removes it', as($ann, $staff, sub { unlink "$dir/private" }));
	};
}
else { not_run('root squashed', 'no squashed export was given') }

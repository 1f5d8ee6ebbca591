# Faults behind a mounted kernel's back. The test on the host does what ask says; nothing here may notice.
# The mounts' time-outs are short, so that the kernel logs a server that does not answer before the test gives up.
BEGIN { require "$ENV{KERNEL}/lib.pl"; require "$ENV{KERNEL}/busy.pl" }
our ($nfs, $other, $dir);

check 'one backup hangs and goes on' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		$progress->(20);
		note(ask('stop a backup'));
		$progress->(20);
		note(ask('continue the backup'));
		$progress->(20);
	});
};

check 'one backup is killed while files are written' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		$progress->(40);
		note(ask('kill a backup'));
		$progress->(120);
	});
};

check 'work goes on with three replicas' => sub {
	busy($dir, sub { $_[0]->(100) });
};

check 'the relay restarts under the mount' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		for (1 .. 5) {
			$progress->(20);
			note(ask('restart the relay'));
		}
		$progress->(20);
	});
};

# A kernel whose port is taken comes back from another one. Kernels from 6.7 on do so whenever they are refused. The
# group executes the calls while nobody waits for them, so each of them would be done twice if it were not recognised.
check 'the kernel comes back from another port' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		for (1 .. 3) {
			$progress->(20);
			my $port = port_of($nfs);
			my $holder = take($port);
			note(ask('kill the relay with all calls under way'));
			note(ask('start the relay'));
			$progress->(20);
			port_of($nfs) != $port or die "the kernel has port $port again, though it is taken\n";
		}
	});
};

# port_of MOUNT: the port from which the kernel is connected to its server.
sub port_of {
	my ($mount) = @_;
	my ($stats) = get('/proc/self/mountstats') =~ / mounted on \Q$mount\E with (.*?)(?=^device |\z)/ms or die "$mount is not mounted\n";
	$stats =~ /^\s*xprt:\s+tcp (\d+) /m or die "$mount has no connection\n";
	return $1;
}

# take PORT: until the socket that is returned is closed, nobody can bind PORT at all addresses, as the kernel does before it
# connects. Its present connection has an address, so a socket at another address can have the same port already. (To
# wait until the connection is gone is too late: the kernel binds the port again at once, and holds it between attempts.)
sub take {
	my ($port) = @_;
	require Socket;
	my $freebind = 15; # IP_FREEBIND, which Socket does not name: the address need not be this machine's
	socket my $s, Socket::PF_INET(), Socket::SOCK_STREAM(), 0 or fail('socket');
	setsockopt $s, Socket::IPPROTO_IP(), $freebind, 1 or fail('IP_FREEBIND');
	bind $s, Socket::pack_sockaddr_in($port, Socket::inet_aton('192.0.2.1')) or fail("bind port $port");
	return $s;
}

check 'a large write survives a restart of the relay' => sub {
	my $mb = 16;
	my $join = children(1, sub {
		open my $h, '>', "$dir/f" or fail('create');
		for my $i (1 .. $mb) { syswrite($h, chr(64 + $i) x (1 << 20)) == 1 << 20 or fail('write'); $h->sync or fail('fsync') }
		close $h or fail('close');
	});
	ask('restart the relay') for 1 .. 3;
	$join->();
	drop();
	my $text = get("$dir/f");
	same('length', length $text, $mb << 20);
	for my $i (1 .. $mb) { substr($text, ($i - 1) << 20, 1 << 20) eq chr(64 + $i) x (1 << 20) or die "megabyte $i differs\n" }
};

# It lost all it had, for this group keeps its state in memory alone; its peers have it.
check 'the killed backup comes back' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		$progress->(20);
		note(ask('restart the backup'));
		$progress->(60);
	});
};

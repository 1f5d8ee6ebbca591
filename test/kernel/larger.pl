# A larger group behind a mounted kernel's back: as many backups die as it may lose, in the middle of the work.
BEGIN { require "$ENV{KERNEL}/lib.pl"; require "$ENV{KERNEL}/busy.pl" }
our ($nfs, $other, $dir);

my $faults = $ENV{FAULTS};

check 'a tree is copied and compared' => sub {
	system('cp', '-a', $ENV{TREE}, "$dir/copy") == 0 or die "cp failed\n";
	drop();
	system('diff', '-r', '--no-dereference', $ENV{TREE}, "$dir/copy") == 0 or die "the copy differs\n";
};

check 'backups are killed while files are written' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		for (1 .. $faults) {
			$progress->(20);
			note(ask('kill a backup'));
		}
		$progress->(40);
	});
};

check 'they come back' => sub {
	busy($dir, sub {
		my ($progress) = @_;
		for (1 .. $faults) {
			note(ask('restart a backup'));
			$progress->(20);
		}
	});
};

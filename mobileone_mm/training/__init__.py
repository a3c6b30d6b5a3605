"""What mmengine's training lacks: exact resume, curricula, seeds by position, CPU process groups."""

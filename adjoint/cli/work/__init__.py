"""What the commands of ``adjoint`` do, where that takes heavy imports."""

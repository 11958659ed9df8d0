"""Direct attribution: what each component writes for the readout; lenses."""

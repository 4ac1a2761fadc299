"""The hidden size of a network: streams that normalisations run over, made narrow."""

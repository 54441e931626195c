"""The compiler: model in, Program out."""

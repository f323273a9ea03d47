"""A study at work: what is checked beforehand, the cells in order, the process of another backend."""

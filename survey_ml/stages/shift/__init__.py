"""Whether the sources of a field are like what the model was made for."""

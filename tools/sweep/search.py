from tools.moved import refuse

refuse(__name__, __spec__.name)

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Enumeration;
import java.util.List;

/**
 * Starts Beam's job server for a cluster that has these jars in its own class path: Beam looks into class loaders for
 * what to upload with a job (150 MB, for half a minute), and does not know this one.
 */
public final class Start extends ClassLoader {
  private final URLClassLoader jars;

  private Start(URL[] jars) {
    super(ClassLoader.getPlatformClassLoader());
    this.jars = new URLClassLoader(jars, null);
  }

  @Override
  protected Class<?> findClass(String name) throws ClassNotFoundException {
    try (InputStream in = jars.getResourceAsStream(name.replace('.', '/') + ".class")) {
      if (in == null) throw new ClassNotFoundException(name);
      byte[] bytes = in.readAllBytes();
      return defineClass(name, bytes, 0, bytes.length);
    } catch (IOException e) {
      throw new ClassNotFoundException(name, e);
    }
  }

  @Override
  protected URL findResource(String name) {
    return jars.findResource(name);
  }

  @Override
  protected Enumeration<URL> findResources(String name) throws IOException {
    return jars.findResources(name);
  }

  public static void main(String[] args) throws Exception {
    List<URL> urls = new ArrayList<>();
    File here = new File(Start.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    for (File jar : new File(here.getParentFile(), "lib").listFiles()) urls.add(jar.toURI().toURL());
    ClassLoader loader = new Start(urls.toArray(new URL[0]));
    Thread.currentThread().setContextClassLoader(loader);
    loader.loadClass("org.apache.beam.runners.flink.FlinkJobServerDriver")
        .getMethod("main", String[].class).invoke(null, (Object) args);
  }
}
